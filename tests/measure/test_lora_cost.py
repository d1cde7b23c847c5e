"""Adapters in the costs: the closed form against built models."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import save_model
from torch.utils.flop_counter import FlopCounterMode

from isthmus.adapters import MARK, Lora
from isthmus.connectors import LinearConfig
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.measure import cost, training_memory
from isthmus.model import Model, VisionLanguageModel
from isthmus.train import freeze

LORA = Lora(rank=3, dropout=0.0)
SOME = Lora(rank=2, targets=("q_proj", "v_proj"))


def model(root: Path, family: str, *, tower: Lora, words: Lora) -> Model:
    made = EncoderDecoderLM if family == "t5" else CausalLM
    return Model(
        encoder=VisionEncoder(lora=tower),
        connector=LinearConfig(),
        llm=made(name=save_model(family, root), max_tokens=64, lora=words),
    )


@pytest.mark.parametrize("family", ["llama", "opt", "t5"])
@pytest.mark.parametrize(("tower", "words"), [(Lora(), LORA), (SOME, LORA), (LORA, Lora())])
def test_counts_are_those_of_the_built_model(tmp_path: Path, family: str, tower: Lora, words: Lora) -> None:
    config, train = model(tmp_path, family, tower=tower, words=words), ("encoder", "connector", "llm")
    built = VisionLanguageModel(config)
    freeze.apply(built, train)
    bill = cost(config, train=train)
    for name, part in bill.parts.items():
        weights = list(getattr(built, name).named_parameters())
        assert part.parameters == sum(one.numel() for _, one in weights), name
        assert part.learned == sum(one.numel() for _, one in weights if one.requires_grad), name
        assert part.adapters == sum(one.numel() for key, one in weights if MARK in key), name
    memory = training_memory(config, train=train)
    assert memory.weights == sum(one.numel() * one.element_size() for one in built.parameters())
    learning = [one for one in built.parameters() if one.requires_grad]
    assert memory.gradients == sum(one.numel() * one.element_size() for one in learning)
    assert memory.optimizer == 2 * memory.gradients


def test_adapters_take_the_precision_of_what_they_stand_beside(tmp_path: Path) -> None:
    config = model(tmp_path, "llama", tower=Lora(), words=LORA)
    assert config.llm is not None
    half = replace(config, llm=replace(config.llm, precision="bfloat16"))
    assert half.llm is not None
    built = half.llm.build()
    bill = cost(half, train=("llm",))
    assert training_memory(half, train=("llm",)).gradients == 2 * bill.llm.learned
    assert bill.llm.learned == sum(one.nbytes // 2 for key, one in built.named_parameters() if MARK in key)


def test_a_path_names_the_adapters_below_it(tmp_path: Path) -> None:
    config = model(tmp_path, "llama", tower=Lora(), words=LORA)
    path = "llm.model.model.layers.1"
    built = VisionLanguageModel(config, with_encoder=False)
    freeze.apply(built, (path,))
    bill = cost(config, train=(path,))
    assert 0 < bill.learned == sum(one.numel() for one in built.parameters() if one.requires_grad)
    assert bill.learned < cost(config, train=("llm",)).learned


def test_adapters_keep_less_than_the_whole_and_cost_little(tmp_path: Path) -> None:
    plain = model(tmp_path, "llama", tower=Lora(), words=Lora())
    adapted = model(tmp_path, "llama", tower=Lora(), words=LORA)
    train = ("connector", "llm")
    whole, small = training_memory(plain, train=train), training_memory(adapted, train=train)
    assert small.gradients < whole.gradients
    assert small.weights == whole.weights + 4 * cost(adapted).llm.adapters
    assert small.activations > training_memory(plain, train=("connector",)).activations
    before, after = cost(plain, train=train), cost(adapted, train=train)
    assert after.training_flops() < before.training_flops()


def test_flops_of_adapters_are_what_torch_counts(tmp_path: Path) -> None:
    length = 7
    counted, stated = [], []
    for lora in (Lora(), LORA):
        llm, tower = model(tmp_path, "llama", tower=lora, words=lora).llm, VisionEncoder(lora=lora)
        assert llm is not None
        built = llm.build()
        with FlopCounterMode(display=False) as words, torch.no_grad():
            built.model.base_model(input_ids=torch.ones(1, length, dtype=torch.long), use_cache=False)
        with FlopCounterMode(display=False) as sight, torch.no_grad():
            tower.build()(torch.zeros(1, 3, 96, 96))
        counted.append((words.get_total_flops(), sight.get_total_flops()))
        stated.append((llm.flops(length), tower.flops()))
    for place in (0, 1):
        assert counted[1][place] - counted[0][place] == stated[1][place] - stated[0][place] > 0
