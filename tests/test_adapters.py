"""Adapters change nothing until they are trained, learn alone, and merge into what they stand beside."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_model

from isthmus.adapters import MARK, Lora, merge_lora
from isthmus.config import from_json, to_json
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.model import TYPES
from isthmus.train import freeze

LORA = Lora(rank=3, dropout=0.0)


def shake(module: torch.nn.Module) -> None:
    torch.manual_seed(1)
    for name, weight in module.named_parameters():
        if MARK in name:
            torch.nn.init.normal_(weight, std=0.3)


@pytest.mark.parametrize("family", ["llama", "opt", "t5"])
def test_a_language_model_with_adapters(family: str, tmp_path: Path) -> None:
    made = EncoderDecoderLM if family == "t5" else CausalLM
    config = made(name=save_model(family, tmp_path), max_tokens=64)
    plain, adapted = config.build(), replace(config, lora=LORA).build()
    ids = torch.tensor([[5, 6, 7, 8]])
    given = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})

    def said(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return model(**given).logits

    torch.testing.assert_close(said(adapted.model), said(plain.model))
    shake(adapted)
    trained = said(adapted.model)
    assert not torch.allclose(trained, said(plain.model), atol=1e-3)
    assert merge_lora(adapted.model) > 0
    torch.testing.assert_close(said(adapted.model), trained, atol=1e-4, rtol=1e-3)
    assert set(adapted.model.state_dict()) == set(plain.model.state_dict())
    assert config.fingerprint() == replace(config, lora=LORA).fingerprint()


def test_adapters_alone_learn(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"llm": CausalLM(name=save_model("llama", tmp_path), max_tokens=64, lora=LORA).build()})
    freeze.apply(model, ["llm"])
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learns
    assert all(MARK in name for name in learns)
    assert not any("lm_head" in name for name in learns)


def test_an_encoder_with_adapters_sees_what_it_saw() -> None:
    config = VisionEncoder(lora=Lora(rank=2, targets=("q_proj", "v_proj")))
    pixels = torch.randn(1, 3, 96, 96)
    adapted = config.build()
    with torch.no_grad():
        torch.testing.assert_close(adapted(pixels).tokens, VisionEncoder().build()(pixels).tokens)
    assert {name.split(".")[-4] for name, _ in adapted.named_parameters() if MARK in name} == {"q_proj", "v_proj"}
    assert config.fingerprint() == VisionEncoder().fingerprint()


def test_a_wrong_name_or_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There are: .*q_proj"):
        CausalLM(name=save_model("llama", tmp_path), max_tokens=64, lora=Lora(rank=2, targets=("qq_proj",))).build()
    with pytest.raises(ValueError, match="rank 0 or more"):
        Lora(rank=-1)


def test_it_reads_back_from_json() -> None:
    config = CausalLM(lora=Lora(rank=4, targets=("q_proj",)))
    assert from_json(to_json(config), TYPES) == config
