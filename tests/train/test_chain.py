"""A chain of two tiny stages: order, start weights, resume after a stop, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_stage import Swatches, tiny_stage
from tiny_stage import tiny_model as tiny_chat_model
from tiny_stage1 import tiny_model, tiny_stage1

from isthmus.config import from_json, to_json
from isthmus.evaluate.sight import OwnEncoder, open_run
from isthmus.runs import Run
from isthmus.train.chain import CHAIN_FILE, TYPES, Chain, read_chain, train_chain
from isthmus.train.loop import Training, train
from isthmus.train.options import RunOptions
from isthmus.train.stage import AdamW, Stage
from isthmus.train.steps import Steps

KNOWN = {**TYPES, "Swatches": Swatches}


def tiny_chain(root: Path, **second: object) -> Chain:
    connector = replace(tiny_model(root).connector, text=False, embedding=0)
    model = replace(tiny_chat_model(root), connector=connector)
    changes = {"name": "tiny/two", "model": model, "start_from": "tiny/one", "steps": 3, "save_every": 1, **second}
    return Chain(name="tiny", stages=(tiny_stage1(root, name="tiny/one", steps=2), tiny_stage(root, **changes)))


def weights_of(runs: tuple[Run, ...]) -> Iterator[dict[str, torch.Tensor]]:
    return (run.weights() for run in runs)


def test_the_second_stage_starts_from_the_weights_of_the_first(root: Path, tmp_path: Path) -> None:
    chain = tiny_chain(root, steps=1, optimizer=AdamW(peak_lr=0.0))
    told: list[str] = []
    first, second = train_chain(
        chain, tmp_path / "c", progress=False, on_stage=lambda stage, run: told.append(run.name)
    )
    assert told == ["tiny/one", "tiny/two"]
    assert [one.folder for one in (first, second)] == [tmp_path / "c" / "1-one", tmp_path / "c" / "2-two"]
    ours, theirs = second.weights(), first.weights()
    shared = [name for name in ours if name in theirs]
    assert "connector.queries" in shared
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    assert second.stage_json["start"]["folder"] == str(first.folder.resolve())
    assert read_chain(tmp_path / "c", KNOWN) == chain
    assert from_json(to_json(chain), KNOWN) == chain


def test_rows_are_packed_where_there_is_a_language_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, RunOptions]] = []

    def watched(stage: Stage, folder: Path, *, options: RunOptions, **others: Any) -> Run:
        asked.append((stage.name, options))
        return train(stage, folder, options=options, **others)

    monkeypatch.setattr("isthmus.train.chain.train", watched)
    options = RunOptions(pack=True, tensorboard=True)
    _, second = train_chain(tiny_chain(root), tmp_path / "c", progress=False, options=options)
    assert asked == [("tiny/one", RunOptions(tensorboard=True)), ("tiny/two", options)]
    assert second.finished
    assert list((tmp_path / "c" / "1-one" / "tensorboard").glob("events*"))


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_stopped_chain_goes_on_at_the_unfinished_stage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    chain = tiny_chain(root)
    whole = train_chain(chain, tmp_path / "whole", progress=False)
    taken: list[int] = []
    take = Steps.take

    def counted(self: Steps, step: int) -> None:
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(step)
        take(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "take", counted)
        with pytest.raises(KeyboardInterrupt):
            train_chain(chain, tmp_path / "broken", progress=False)
    begun: list[str] = []
    run = Training.run

    def noted(self: Training) -> None:
        begun.append(self.stage.name)
        run(self)

    monkeypatch.setattr(Training, "run", noted)
    broken = train_chain(chain, tmp_path / "broken", resume=True, progress=False)
    assert begun == (["tiny/two"] if stop == 3 else ["tiny/one", "tiny/two"])
    for ours, theirs in zip(weights_of(broken), weights_of(whole), strict=True):
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_no_chain_is_refused(root: Path, tmp_path: Path) -> None:
    chain = tiny_chain(root)
    one, two = chain.stages
    with pytest.raises(ValueError, match="two stages or more"):
        replace(chain, stages=(one,))
    with pytest.raises(ValueError, match=r"'tiny/one' starts from None and not from the stage before it, 'tiny/two'"):
        replace(chain, stages=(two, one))
    wider = replace(two, model=replace(two.model, connector=replace(two.model.connector, num_queries=4)))
    with pytest.raises(ValueError, match=r"the weights of 'tiny/one' do not fit 'tiny/two'.*--stages\.0\.model"):
        train_chain(replace(chain, stages=(one, wider)), tmp_path / "misfit", progress=False)
    assert not (tmp_path / "misfit").exists()


def test_a_folder_holds_one_chain(root: Path, tmp_path: Path) -> None:
    chain = tiny_chain(root, steps=1)
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / CHAIN_FILE).write_text(json.dumps(to_json(chain)))
    with pytest.raises(ValueError, match="already holds a chain"):
        train_chain(chain, folder, progress=False)
    with pytest.raises(ValueError, match="holds another chain"):
        train_chain(replace(chain, items_per_task=5), folder, resume=True, progress=False)
    with pytest.raises(ValueError, match="holds no chain"):
        read_chain(tmp_path)
    (folder / CHAIN_FILE).write_text(json.dumps(to_json(chain.stages[0])))
    with pytest.raises(ValueError, match="holds a Stage"):
        read_chain(folder, KNOWN)
    (folder / CHAIN_FILE).write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_chain(folder)


def test_an_encoder_that_an_earlier_stage_trained_is_looked_through(root: Path, tmp_path: Path) -> None:
    chain = tiny_chain(root, steps=1)
    one, two = chain.stages
    runs = train_chain(chain, tmp_path / "frozen", progress=False)
    assert not isinstance(open_run(runs[1])[1], OwnEncoder)
    tuned = replace(one, train=("connector", "encoder"), cached_views=0)
    first, second = train_chain(replace(chain, stages=(tuned, two)), tmp_path / "tuned", progress=False)
    assert not two.learns("encoder")
    model, eye = open_run(second)
    assert isinstance(eye, OwnEncoder)
    named = dict(model.named_parameters())
    kept = {name: tensor for name, tensor in first.weights().items() if name.startswith("encoder.")}
    assert kept
    assert all(torch.equal(named[name], tensor) for name, tensor in kept.items())
