"""Gradient checkpointing changes memory and nothing else: losses and gradients are equal."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_stage import tiny_model, tiny_stage
from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.data.sources import Source
from isthmus.encoders import VisionEncoder
from isthmus.llms import AddVisual
from isthmus.model import Model, VisionLanguageModel
from isthmus.runs import Run
from isthmus.train import freeze, recompute
from isthmus.train.loop import train

TRAINED = {"frozen": ("connector",), "everything": ("connector", "llm", "encoder")}


def checkpointed(model: Model) -> Model:
    assert model.llm is not None
    assert isinstance(model.encoder, VisionEncoder)
    encoder, llm = replace(model.encoder, checkpointing=True), replace(model.llm, checkpointing=True)
    return replace(model, encoder=encoder, llm=llm)


def built(config: Model, names: tuple[str, ...]) -> VisionLanguageModel:
    torch.manual_seed(0)
    model = VisionLanguageModel(config)
    freeze.apply(model, names)
    recompute.apply(model)
    return model


def batch_for(model: VisionLanguageModel, source: Source) -> Batch:
    dataset = source.of.build()
    samples = [dataset[0], dataset[1]]
    pixels, plans = model.prepare(samples)
    return model.config.batch(samples, tokenizer=model.llm.tokenizer, plans=plans, pixels=pixels)


def gradients(model: VisionLanguageModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and how many numbers autograd kept on the way."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.manual_seed(1)  # of dropout
        loss = model(batch).loss
    loss.backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return loss.detach(), found, kept


@pytest.mark.parametrize("names", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "neox", "t5"])
def test_loss_and_gradients_are_equal(tmp_path: Path, family: str, names: tuple[str, ...]) -> None:
    stage = tiny_stage(tmp_path, family)
    plain, again = built(stage.model, names), built(checkpointed(stage.model), names)
    batch = batch_for(plain, stage.data[0])
    loss, wanted, kept = gradients(plain, batch)
    loss_again, found, kept_again = gradients(again, batch)
    assert torch.equal(loss, loss_again)
    assert set(wanted) == set(found)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-7, rtol=1e-6, msg=name)
    assert kept_again < kept / 2


def test_additions_to_layers_are_not_added_twice(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    embedded = torch.randn(2, 5, 32)
    mask = torch.ones(2, 5, dtype=torch.bool)
    labels = torch.full((2, 5), 7)
    results = []
    for config in (model, checkpointed(model)):
        made = built(config, ("connector",))
        deeper = torch.arange(4 * 32, dtype=torch.float32).reshape(4, 32).mul(0.01).requires_grad_()
        visual = torch.tensor([[True, True, False, False, False]] * 2)
        made.llm.add_to_layers(AddVisual(visual=visual, deeper=(deeper,), layers=(1,)), 2)
        loss = made.llm(embedded, mask, labels).losses.sum()
        loss.backward()
        assert deeper.grad is not None
        results.append((loss.detach(), deeper.grad))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][1].abs().sum() > 0


def test_layers_are_the_stacks_of_either_kind(tmp_path: Path) -> None:
    for family, count in (("llama", 3), ("t5", 6)):
        made = VisionLanguageModel(checkpointed(tiny_model(tmp_path, family)), with_encoder=False)
        assert recompute.apply(made) == count
    assert recompute.apply(VisionLanguageModel(tiny_model(tmp_path))) == 0


def test_a_part_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no list of layers"):
        recompute._wrap(torch.nn.Linear(2, 2))


def test_a_run_with_checkpointing_is_the_run_without(tmp_path: Path) -> None:
    plain = tiny_stage(tmp_path, steps=3, validation=())
    again = replace(plain, model=checkpointed(plain.model))
    runs: list[Run] = [train(stage, tmp_path / name, progress=False) for stage, name in ((plain, "a"), (again, "b"))]
    first, second = (run.weights() for run in runs)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    assert runs[0].stage_json["model_fingerprint"] == runs[1].stage_json["model_fingerprint"]
