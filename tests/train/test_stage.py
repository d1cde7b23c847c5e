"""Stages, schedules and optimizer configs, by value."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_stage import Swatches, tiny_stage
from torch import nn

from isthmus.config import from_json, to_json
from isthmus.data.sources.base import Source
from isthmus.model import Model, VisionLanguageModel
from isthmus.train.feed import Feed
from isthmus.train.objectives import Objective
from isthmus.train.optimizer import load_optimizer_tensors, optimizer_tensors, set_rates
from isthmus.train.stage import TYPES, AdamW, Cosine, Stage


class NeedsText(Objective):
    """An objective that no connector here can give."""

    @property
    def name(self) -> str:
        return "text"

    def check(self, model: Model) -> None:
        raise ValueError(f"{type(model.connector).__name__} cannot read text.")


def test_a_stage_has_fewer_than_twenty_fields() -> None:
    assert len(dataclasses.fields(Stage)) < 20


def test_a_stage_reads_back_equal_from_json(root: Path) -> None:
    stage = tiny_stage(root, optimizer=AdamW(peak_lr=1e-3, rates=(("connector", 3e-4),)))
    text = json.dumps(to_json(stage))
    assert from_json(json.loads(text), {**TYPES, "Swatches": Swatches}) == stage


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": ()}, "trains nothing"),
        ({"data": ()}, "no data"),
        ({"objectives": ()}, "no objective"),
        ({"epochs": 1.0}, "exactly one of `epochs` and `steps`"),
        ({"steps": None}, "exactly one of `epochs` and `steps`"),
        ({"steps": 0}, "`steps` must be 1 or more"),
        ({"steps": None, "epochs": 0.0}, "`epochs` must be above 0"),
        ({"batch_size": 0}, "`batch_size` must be 1 or more"),
        ({"save_every": 0}, "`save_every` must be 1 or more"),
        ({"micro_batch_size": 0}, "`micro_batch_size` must be 1 or more"),
        ({"cached_views": -1}, "must be 0 or more"),
        ({"data": (Source(of=Swatches(), whole_batches=True), Source(of=Swatches()))}, "whole_batches for all of them"),
    ],
)
def test_a_stage_that_cannot_run_is_refused_when_built(root: Path, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_stage(root, **changes)


def test_an_objective_the_model_cannot_give_is_refused_when_built(root: Path) -> None:
    model = dataclasses.replace(tiny_stage(root).model, llm=None)
    with pytest.raises(ValueError, match="NextToken needs a language model"):
        tiny_stage(root, model=model)


def test_an_objective_says_itself_what_it_cannot_take(root: Path) -> None:
    with pytest.raises(ValueError, match="LinearConfig cannot read text"):
        tiny_stage(root, objectives=(NeedsText(),))


def test_whole_batches_are_of_one_source_each(root: Path) -> None:
    data = tuple(Source(of=Swatches(num=12, text_every=blind), whole_batches=True) for blind in (0, 1))
    stage = tiny_stage(root, data=data, batch_size=4)
    feed = Feed(stage, VisionLanguageModel(stage.model, with_encoder=False), device=torch.device("cpu"))
    plans = [{len(batch.plans) for batch in feed.step(step)} for step in range(6)]
    assert sorted(count for (count,) in plans) == [0, 0, 0, 4, 4, 4]


def test_epochs_become_steps_rounded_up(root: Path) -> None:
    stage = tiny_stage(root, steps=None, epochs=1.5, batch_size=16)
    assert stage.num_steps(100) == 10
    assert stage.num_steps(1) == 1
    assert stage.learns("connector")
    assert not stage.learns("conn")
    assert tiny_stage(root, train=("llm.model",)).learns("llm")


def test_cosine_warms_up_and_falls() -> None:
    schedule = Cosine(warmup_steps=2, min_fraction=0.1)
    factors = [round(schedule.factor(step, 6), 4) for step in range(7)]
    assert factors == [0.5, 1.0, 1.0, 0.8682, 0.55, 0.2318, 0.1]
    assert Cosine(warmup_fraction=0.0).factor(0, 4) == 1.0
    assert Cosine(warmup_fraction=0.5).factor(0, 4) == 0.5
    for wrong in ({"warmup_fraction": 1.0}, {"min_fraction": 1.5}, {"warmup_steps": -1}):
        with pytest.raises(ValueError, match="must"):
            Cosine(**wrong)


def parts() -> nn.ModuleDict:
    return nn.ModuleDict({"connector": nn.Linear(2, 3), "llm": nn.ModuleDict({"norm": nn.LayerNorm(3)})})


def test_groups_by_rate_and_decay() -> None:
    model = parts()
    config = AdamW(peak_lr=1e-3, weight_decay=0.1, rates=(("llm", 1e-5),))
    groups = config.groups(model.named_parameters())
    assert [(group["names"], group["peak_lr"], group["weight_decay"]) for group in groups] == [
        (["connector.weight"], 1e-3, 0.1),
        (["connector.bias"], 1e-3, 0.0),
        (["llm.norm.weight", "llm.norm.bias"], 1e-5, 0.0),
    ]
    everything = dataclasses.replace(config, rates=(), decay_norms_and_biases=True).groups(model.named_parameters())
    assert [(len(group["names"]), group["weight_decay"]) for group in everything] == [(4, 0.1)]


def test_the_longest_path_wins_and_a_rate_for_nothing_is_refused() -> None:
    config = AdamW(peak_lr=1.0, rates=(("llm", 0.5), ("llm.norm", 0.25), ("ll", 9.0)))
    assert config.rate("llm.norm.weight") == 0.25
    assert config.rate("llm.head") == 0.5
    assert config.rate("connector.weight") == 1.0
    with pytest.raises(ValueError, match="'ll', but nothing that trains"):
        config.groups(parts().named_parameters())
    with pytest.raises(ValueError, match="0 or more"):
        AdamW(peak_lr=-1.0)
    with pytest.raises(ValueError, match="clip_norm"):
        AdamW(peak_lr=1.0, clip_norm=0.0)


def test_optimizer_state_goes_through_named_tensors() -> None:
    torch.manual_seed(0)
    ours, theirs = parts(), parts()
    theirs.load_state_dict(ours.state_dict())
    first, second = (AdamW(peak_lr=0.1).build(model.named_parameters()) for model in (ours, theirs))
    for _ in range(2):
        ours["connector"](torch.ones(1, 2)).sum().backward()
        set_rates(first, 0.5)
        first.step()
    assert first.param_groups[0]["lr"] == 0.05
    theirs.load_state_dict(ours.state_dict())
    tensors = optimizer_tensors(first)
    assert sorted(tensors) == [
        f"connector.{name}|{entry}" for name in ("bias", "weight") for entry in ("exp_avg", "exp_avg_sq", "step")
    ]
    load_optimizer_tensors(second, tensors)
    for model, optimizer in ((ours, first), (theirs, second)):
        set_rates(optimizer, 0.5)
        model.zero_grad()
        model["connector"](torch.ones(1, 2)).sum().backward()
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
    with pytest.raises(ValueError, match="parameters that do not train here"):
        load_optimizer_tensors(second, {"other|exp_avg": torch.zeros(1)})
