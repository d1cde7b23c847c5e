"""Short rows in bfloat16 on a CPU are trained through plain attention, to the same losses; everything else is not."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, save_model
from torch import nn

from isthmus.llms import CausalLM, Generation
from isthmus.llms.additions import find_layers
from isthmus.llms.causal import SHORT, CausalLanguageModel


def built(family: str, root: Path) -> CausalLanguageModel:
    model = CausalLM(name=save_model(family, root), max_tokens=64).build()
    assert isinstance(model, CausalLanguageModel)
    return model


def watch(model: CausalLanguageModel) -> list[str]:
    """What every layer's attention is, each time that the first one runs."""
    found: list[str] = []

    def note(layer: nn.Module, args: Any) -> None:
        found.append(model.model.config._attn_implementation)  # type: ignore[union-attr, arg-type]

    first_layer(model).register_forward_pre_hook(note)
    return found


def first_layer(model: CausalLanguageModel) -> nn.Module:
    return find_layers(model.model, model.additions.num_layers)[0]


def rows(model: CausalLanguageModel, length: int = 12) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(4, 250, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(length) < torch.tensor([[length], [length - 5], [length - 2]])
    return model.embed(ids).detach().requires_grad_(), mask, ids.masked_fill(~mask, -100)


def low() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_losses_and_gradients_are_those_of_fused_attention(family: str, left: bool, tmp_path: Path) -> None:
    model = built(family, tmp_path)
    found = watch(model)
    results = []
    for again in (False, True):
        model.recomputes = again
        embeddings, mask, labels = rows(model)
        if left:
            mask, labels = mask.flip(1), labels.flip(1)
            labels[:, 1:].masked_fill_(~mask[:, :-1], -100)  # predicted from padding
        with low():
            losses = model(embeddings, mask, labels).losses
        (gradient,) = torch.autograd.grad(losses.sum(), embeddings)
        results.append((losses.detach(), gradient))
    assert found == (["eager", "eager"] if family == "gemma2" else ["eager", "sdpa"])  # Gemma 2 has its own choice
    (plain, by_plain), (fused, by_fused) = results
    torch.testing.assert_close(plain, fused, atol=0.05, rtol=0.02)
    assert torch.cosine_similarity(by_plain.flatten(), by_fused.flatten(), dim=0) > 0.995


@pytest.mark.parametrize("reason", ["float32", "no gradient", "long", "recomputed", "written"])
def test_everywhere_else_attention_is_fused(reason: str, tmp_path: Path) -> None:
    model = built("llama", tmp_path)
    found = watch(model)
    model.recomputes = reason == "recomputed"
    embeddings, mask, labels = rows(model, SHORT + 1 if reason == "long" else 12)
    with (
        torch.no_grad() if reason in ("no gradient", "written") else nullcontext(),
        nullcontext() if reason == "float32" else low(),
    ):
        if reason == "written":
            model.generate(embeddings.flip(1), labels.clamp(min=0).flip(1), mask.flip(1), Generation(max_new_tokens=2))
        else:
            model(embeddings, mask, labels)
    assert set(found) == {"sdpa"}


def test_it_is_fused_again_after_an_error(tmp_path: Path) -> None:
    model = built("llama", tmp_path)
    embeddings, mask, labels = rows(model)

    def fail(layer: nn.Module, args: Any) -> None:
        raise RuntimeError("in the middle")

    first_layer(model).register_forward_pre_hook(fail)
    with low(), pytest.raises(RuntimeError, match="in the middle"):
        model(embeddings, mask, labels)
    assert model.model.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
