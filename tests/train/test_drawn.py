"""Matryoshka in training: a number of tokens drawn for every step, the prompt laid out for it, resumed exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_stage import tiny_stage

from isthmus.connectors import LinearConfig, MatryoshkaConfig
from isthmus.connectors.matryoshka import Matryoshka
from isthmus.features import Features, VisualTokens
from isthmus.runs import Run, can_start
from isthmus.train import watch
from isthmus.train.checkpoint import latest
from isthmus.train.drawn import at_step
from isthmus.train.loop import train
from isthmus.train.stage import Stage
from isthmus.train.steps import Steps

FOUR = MatryoshkaConfig(tokens=4, side=4, head_width=8)


def stage_of(root: Path, connector: MatryoshkaConfig = FOUR) -> Stage:
    stage = tiny_stage(root, steps=6, micro_batch_size=2, validate_every=3, save_every=2)
    return replace(stage, model=replace(stage.model, connector=connector))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Whether it was trained, and the tokens it gave, at every call of the connector."""
    calls: list[tuple[bool, int]] = []
    forward = Matryoshka.forward

    def noting(self: Matryoshka, features: Features) -> VisualTokens:
        given = forward(self, features)
        calls.append((self.training, given.tokens.shape[1]))
        return given

    monkeypatch.setattr(Matryoshka, "forward", noting)
    return calls


def test_every_step_draws_and_validation_does_not(root: Path, tmp_path: Path, seen: list[tuple[bool, int]]) -> None:
    train(stage_of(root), tmp_path / "run", progress=False)
    drawn = [FOUR.draw(0, step) for step in range(6)]
    assert len(set(drawn)) > 2
    assert [tokens for training, tokens in seen if training] == [tokens for tokens in drawn for _ in range(2)]
    assert {tokens for training, tokens in seen if not training} == {4}


def test_the_doctor_looks_at_a_step_with_the_tokens_it_drew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[bool, int]]
) -> None:
    monkeypatch.setattr(watch, "NEAREST", 1)
    run = train(replace(stage_of(root), log_every=1, validation=()), tmp_path / "run", progress=False)
    assert sum("image_gain" in line for line in run.log()) == 6
    assert {tokens for training, tokens in seen if not training} == {FOUR.draw(0, step) for step in range(6)}


def test_without_varying_the_number_stays(root: Path, tmp_path: Path, seen: list[tuple[bool, int]]) -> None:
    stage = stage_of(root, replace(FOUR, varies=False))
    train(replace(stage, steps=2), tmp_path / "run", progress=False)
    assert {tokens for _, tokens in seen} == {4}
    assert at_step(stage.model, 0, 1) == stage.model


def test_a_stopped_run_resumes_to_the_same_bytes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(root)
    whole = train(stage, tmp_path / "whole", progress=False)
    taken = Steps.take

    def stop(steps: Steps, number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt
        taken(steps, number)

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", stop)
        with pytest.raises(KeyboardInterrupt):
            train(stage, tmp_path / "broken", progress=False)
    broken = train(stage, tmp_path / "broken", progress=False, resume=True)
    for name in ("log.jsonl", "weights.safetensors"):
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    first, second = latest(whole.folder), latest(broken.folder)
    assert first is not None
    assert second is not None
    name = "optimizer.safetensors"
    assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_the_stage_that_draws_may_start_from_the_one_that_did_not(root: Path, tmp_path: Path) -> None:
    """All queries first, any number then; other weights are refused."""
    stage = stage_of(root, MatryoshkaConfig(tokens=16, side=4, head_width=8, varies=False))
    run: Run = train(replace(stage, steps=1), tmp_path / "first", progress=False)
    assert can_start(run, stage_of(root).model)
    assert not can_start(run, stage_of(root, replace(FOUR, head_width=4)).model)
    assert not can_start(run, replace(stage.model, connector=LinearConfig()))
    again = replace(stage_of(root), steps=1, start_from="tiny")
    assert train(again, tmp_path / "second", start=run.folder, progress=False).finished


def test_a_built_connector_follows_its_own_weights_alone(root: Path) -> None:
    model = stage_of(root).model
    built = FOUR.build(model.source(), model.target())
    built.follow(replace(FOUR, tokens=9))
    assert isinstance(built, Matryoshka)
    assert built.tokens == 9
    with pytest.raises(ValueError, match="needs other weights"):
        built.follow(replace(FOUR, head_width=4))
