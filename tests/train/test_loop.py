"""Whole runs on tiny models: repeatable, resumable, honest about what they skip and refuse."""

import dataclasses
import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_stage import Swatches, tiny_model, tiny_stage

from isthmus.connectors import MlpConfig
from isthmus.data.sources import Source
from isthmus.encoders.cached import CachedEncoder
from isthmus.llms.packing import Packed, pack
from isthmus.runs import Run
from isthmus.train import checkpoint
from isthmus.train.loop import train
from isthmus.train.options import RunOptions
from isthmus.train.progress import Progress
from isthmus.train.setup import build_model
from isthmus.train.stage import TYPES, AdamW, Stage, read_stage
from isthmus.train.steps import Steps


def go(stage: Stage, folder: Path, **options: object) -> Run:
    return train(stage, folder, progress=False, **options)


def content(run: Path) -> dict[str, bytes]:
    """The bytes of everything that equal runs share."""
    saved = checkpoint.latest(run)
    assert saved is not None
    return {
        "log": (run / "log.jsonl").read_bytes(),
        "weights": (run / "weights.safetensors").read_bytes(),
        "optimizer": (saved.folder / "optimizer.safetensors").read_bytes(),
        "state": (saved.folder / "state.json").read_bytes(),
    }


class StoppedError(Exception):
    """Stands for a kill."""


def stop_before(step: int) -> Callable[[Steps, int], None]:
    taken = Steps.take

    def take(steps: Steps, number: int) -> None:
        if number == step:
            raise StoppedError
        taken(steps, number)

    return take


def test_equal_stages_give_equal_runs_and_learn(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root)
    first, second = go(stage, tmp_path / "a"), go(stage, tmp_path / "b")
    assert content(first.folder) == content(second.folder)
    assert first.finished
    assert first.result["steps"] == 12
    losses = [line["loss"] for line in first.log() if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert [line["step"] for line in first.log() if "validation_loss" in line] == [6, 12]
    assert first.log()[0] == {"step": 0, "parameters": 40448, "trainable": 544}
    other = go(dataclasses.replace(stage, seed=1), tmp_path / "c")
    assert content(other.folder)["weights"] != content(first.folder)["weights"]
    assert len(first.timing()) == 5
    assert first.timing()[-1]["event"] == "finished"


@pytest.mark.parametrize("step", [2, 4, 7, 11])
def test_a_stopped_run_resumes_to_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    stage = tiny_stage(root, "opt", train=("connector", "llm.model.model.decoder.layers.1"), micro_batch_size=3)
    whole = go(stage, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", stop_before(step))
        with pytest.raises(StoppedError):
            go(stage, tmp_path / "broken")
    resumed = go(stage, tmp_path / "broken", resume=True)
    assert content(resumed.folder) == content(whole.folder)
    best = [(run.folder / "best.safetensors").read_bytes() for run in (whole, resumed)]
    assert best[0] == best[1]


def test_resuming_a_finished_run_does_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tiny_stage(root, steps=4)
    before = content(go(stage, tmp_path / "run").folder)
    monkeypatch.setattr(Steps, "take", stop_before(0))
    assert content(go(stage, tmp_path / "run", resume=True).folder) == before


def test_a_stage_that_is_refused_leaves_its_folder_to_the_mended_one(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, steps=2)
    with pytest.raises(ValueError, match="nothing_there"):
        go(dataclasses.replace(stage, train=("nothing_there",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    go(stage, tmp_path / "run")
    with pytest.raises(ValueError, match="nothing_there"):
        go(dataclasses.replace(stage, train=("nothing_there",)), tmp_path / "other")
    assert (tmp_path / "run" / "finished.json").is_file()


def test_a_folder_that_holds_a_run_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, steps=2)
    go(stage, tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run"):
        go(stage, tmp_path / "run")
    with pytest.raises(ValueError, match="another stage: it differs in seed"):
        go(dataclasses.replace(stage, seed=5), tmp_path / "run", resume=True)


def test_no_space_left_in_a_save_loses_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tiny_stage(root)
    whole = go(stage, tmp_path / "whole")
    written = checkpoint.save_file

    def full(tensors: object, path: Path) -> None:
        if "00000008" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="Cannot write the save of step 8: No space left"):
            go(stage, tmp_path / "full")
    saved = checkpoint.latest(tmp_path / "full")
    assert saved is not None
    assert saved.step == 4
    assert content(go(stage, tmp_path / "full", resume=True).folder) == content(whole.folder)


def test_accumulation_gives_the_gradients_of_the_whole_batch(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, steps=1, save_every=1, optimizer=AdamW(peak_lr=1e-2, clip_norm=None), validation=())
    whole = go(stage, tmp_path / "whole")
    parts = go(dataclasses.replace(stage, micro_batch_size=1), tmp_path / "parts")
    ours, theirs = (checkpoint.latest(run.folder).optimizer() for run in (whole, parts))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-8)
    assert parts.log()[-1]["grad_norm"] is None


def test_a_second_run_over_the_same_images_makes_no_encoder_call(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tiny_stage(root, steps=6), tmp_path / "first")

    def refuse(self: CachedEncoder) -> None:
        raise AssertionError("the encoder was built")

    monkeypatch.setattr(CachedEncoder, "_built", refuse)
    model = dataclasses.replace(tiny_model(root), connector=MlpConfig(depth=2))
    second = go(tiny_stage(root, steps=6, model=model), tmp_path / "second")
    assert second.log()[-1]["step"] == 6


def test_the_encoder_learns_from_pixels_when_it_is_named(root: Path, tmp_path: Path) -> None:
    run = go(tiny_stage(root, train=("encoder", "connector"), steps=2, validate_every=0), tmp_path / "run")
    names = set(run.weights())
    assert {name.partition(".")[0] for name in names} == {"encoder", "connector"}
    fresh = run.model_config.encoder.build().state_dict()
    moved = [name for name, one in run.weights().items() if name.startswith("encoder.") and one.dtype.is_floating_point]
    assert any(not torch.equal(run.weights()[name], fresh[name.removeprefix("encoder.")]) for name in moved)


@pytest.mark.parametrize("views", [0, 2])
def test_views_are_chosen_by_step(root: Path, tmp_path: Path, views: int) -> None:
    stage = tiny_stage(root, cached_views=views, steps=3)
    plain = go(tiny_stage(root, steps=3), tmp_path / "plain")
    first, second = go(stage, tmp_path / "a"), go(stage, tmp_path / "b")
    assert content(first.folder) == content(second.folder)
    assert plain.finished


def test_an_encoder_decoder_and_text_only_samples_train(root: Path, tmp_path: Path) -> None:
    data = (Source(of=Swatches(text_every=2)),)
    run = go(tiny_stage(root, "t5", data=data, steps=3, batch_size=2), tmp_path / "run")
    assert run.result["best"]["step"] in (3, 6)


def test_samples_with_broken_images_are_skipped_and_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (Source(of=Swatches(broken=(1, 5))),)
    stage = tiny_stage(root, data=data, steps=8)
    whole = go(stage, tmp_path / "whole")
    assert whole.result["skipped"] == ["data 0:Remembered/1", "data 0:Remembered/5"]
    assert "swatch 5 is cut short" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", stop_before(7))
        with pytest.raises(StoppedError):
            go(stage, tmp_path / "broken")
    resumed = go(stage, tmp_path / "broken", resume=True)
    assert resumed.result == whole.result
    assert content(resumed.folder) == content(whole.folder)


def test_a_stage_starts_from_another_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go(tiny_stage(root, steps=2), tmp_path / "runs" / "first")
    next_stage = tiny_stage(root, name="next", start_from="tiny", train=("llm.model.model.layers.0",), steps=2)
    monkeypatch.setenv("ISTHMUS_RUNS", str(tmp_path / "runs"))
    run = go(next_stage, tmp_path / "runs" / "next")
    weights = run.weights()
    for name, tensor in first.weights().items():
        assert torch.equal(weights[name], tensor)
    assert any(name.startswith("llm.model.model.layers.0.") for name in weights)
    other = dataclasses.replace(tiny_model(root), connector=MlpConfig(depth=2))
    with pytest.raises(ValueError, match="was trained with another connector"):
        go(dataclasses.replace(next_stage, model=other), tmp_path / "other", start=first.folder)
    with pytest.raises(ValueError, match="starts from nothing"):
        go(tiny_stage(root, steps=2), tmp_path / "other", start=first.folder)


def test_a_loss_that_breaks_down_stops_the_run(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, optimizer=AdamW(peak_lr=3e38, clip_norm=None), log_every=1, save_every=1, validation=())
    with pytest.raises(ValueError, match="is not a finite number"):
        go(stage, tmp_path / "run")


def test_progress_is_told_and_the_stage_is_saved(root: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    stage = tiny_stage(root, steps=2)
    run = go(stage, tmp_path / "run", on_progress=told.append)
    assert [one.phase for one in told if one.done == one.total] == ["lengths", "features", "train", "validate"]
    assert told[-1].done == told[-1].total == 6
    assert "tiny lengths 1/14" in str(told[0])
    saved = json.loads((tmp_path / "run" / "stage.json").read_text())
    assert saved["model_fingerprint"] == stage.model.fingerprint()
    types = {"Swatches": Swatches}
    assert read_stage(run, {**TYPES, **types}) == stage


def test_what_learns_is_said_before_the_first_step(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = tiny_stage(root, steps=1, validation=())
    train(stage, tmp_path / "run")
    said = [line.split() for line in capsys.readouterr().err.splitlines() if line.strip()]
    parts = {line[0]: line[3] for line in said if "parameters" in line}
    assert parts == {"encoder": "frozen", "connector": parts["connector"], "llm": "frozen"}
    learning = next(line for line in said if line[0] == "connector")
    assert learning[3:7] == [learning[1], "learn", "lr", f"{stage.optimizer.peak_lr:g}"]
    first_step = next(number for number, line in enumerate(said) if line[1:2] == ["train"])
    assert all(said.index(line) < first_step for line in said if "parameters" in line)


def test_a_packed_run_has_the_losses_of_an_unpacked_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tiny_stage(root, steps=3, log_every=1, data=(Source(of=Swatches(text_every=3)),))
    losses, fewer = [], []

    def noted(embeddings: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, capacity: int) -> Packed:
        packed = pack(embeddings, mask, labels, capacity)
        fewer.append(len(packed.embeddings) < len(embeddings))
        return packed

    monkeypatch.setattr("isthmus.llms.causal.pack", noted)
    for packs in (False, True):
        run = go(stage, tmp_path / f"{packs}", options=RunOptions(pack=packs))
        losses.append([line["loss"] for line in run.log() if "loss" in line] + [run.result["validation_loss"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert sum(fewer) >= 3


def test_packing_without_a_causal_language_model_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Packing is for a causal language model"):
        go(tiny_stage(root, "t5"), tmp_path / "run", options=RunOptions(pack=True))


def test_fresh_weights_do_not_depend_on_whether_the_encoder_is_loaded(root: Path) -> None:
    frozen = build_model(tiny_stage(root))
    learning = build_model(tiny_stage(root, train=("encoder",)))
    assert frozen.encoder is None
    assert learning.encoder is not None
    for ours, theirs in zip(frozen.connector.parameters(), learning.connector.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_bf16_computes_in_bf16_and_keeps_the_weights(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage(root, steps=1, log_every=1, validation=())
    losses = []
    for precision in ("float32", "bf16"):
        run = go(dataclasses.replace(stage, precision=precision), tmp_path / precision)
        losses.append(run.log()[-1]["loss"])
        assert {tensor.dtype for tensor in run.weights().values()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def in_a_worker(models: str, run: str) -> None:
    train(tiny_stage(Path(models), steps=2), Path(run), progress=False)


@pytest.mark.long
def test_a_spawned_worker_trains_the_same_bytes(root: Path, tmp_path: Path) -> None:
    ours = go(tiny_stage(root, steps=2), tmp_path / "ours")
    worker = multiprocessing.get_context("spawn").Process(
        target=in_a_worker, args=(str(root), str(tmp_path / "worker"))
    )
    worker.start()
    worker.join(300)
    assert worker.exitcode == 0
    assert content(tmp_path / "worker") == content(ours.folder)
