"""A save is whole or absent, whatever fails while it is written."""

import errno
import os
from pathlib import Path

import pytest
import torch

from isthmus.train import checkpoint
from isthmus.train.journal import Journal


def save(run: Path, step: int) -> None:
    checkpoint.save(
        run,
        step,
        trained={"connector.weight": torch.full((2,), float(step))},
        optimizer={"connector.weight|step": torch.tensor(float(step))},
        state={"log_bytes": step},
    )


def held(run: Path) -> tuple[int, float, float, int]:
    saved = checkpoint.latest(run)
    assert saved is not None
    weight, count = saved.weights()["connector.weight"], saved.optimizer()["connector.weight|step"]
    return saved.step, float(weight[0]), float(count), saved.state["log_bytes"]


def test_the_newest_save_is_kept_and_published(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    save(tmp_path, 3)
    save(tmp_path, 10)
    assert held(tmp_path) == (10, 10.0, 10.0, 10)
    assert sorted(os.listdir(tmp_path)) == ["state", "weights.safetensors"]
    assert os.listdir(tmp_path / "state") == ["step-00000010"]
    newest = tmp_path / "state" / "step-00000010" / "weights.safetensors"
    assert (tmp_path / "weights.safetensors").read_bytes() == newest.read_bytes()
    assert checkpoint.latest(tmp_path).state["step"] == 10


def test_publishing_twice_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path, 3)
    checkpoint.publish_weights(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["state", "weights.safetensors"]


def test_weights_are_copied_where_files_cannot_have_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, 3)
    assert (tmp_path / "weights.safetensors").stat().st_nlink == 1


@pytest.mark.parametrize("failing", ["save_file", "fsync", "rename", "write"])
def test_no_space_left_keeps_the_save_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    save(tmp_path, 3)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"save_file": (checkpoint, "save_file"), "write": (checkpoint, "_write_synced")}
    with monkeypatch.context() as patch:
        patch.setattr(*target.get(failing, (os, failing)), full)
        with pytest.raises(
            OSError, match=r"Cannot write the save of step 7: No space left on device\. .* intact"
        ) as caught:
            save(tmp_path, 7)
    assert caught.value.errno == errno.ENOSPC
    assert held(tmp_path) == (3, 3.0, 3.0, 3)
    assert os.listdir(tmp_path / "state") == ["step-00000003"]
    save(tmp_path, 7)
    assert held(tmp_path) == (7, 7.0, 7.0, 7)


def test_safetensors_own_error_for_a_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save(tmp_path, 1)
    assert caught.value.errno == errno.ENOSPC


def test_leftovers_of_a_killed_save_are_no_save(tmp_path: Path) -> None:
    save(tmp_path, 3)
    partial = tmp_path / "state" / "partial-00000009"
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "best.safetensors.partial").write_bytes(b"half")
    (tmp_path / "state" / "step-00000002").mkdir()
    assert held(tmp_path)[0] == 3
    checkpoint.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path / "state") == ["step-00000003"]
    assert sorted(os.listdir(tmp_path)) == ["state", "weights.safetensors"]


def test_a_journal_cuts_what_was_logged_after_the_save(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.log(1, {"loss": 0.5})
    kept = journal.sync()
    journal.log(2, {"loss": 0.25})
    journal.time(2, {"seconds": 1.5})
    journal.close()
    assert kept == len(b'{"step": 1, "loss": 0.5}\n')
    again = Journal(tmp_path, log_bytes=kept)
    again.log(2, {"loss": 0.125})
    again.close()
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.125}\n'
    assert (tmp_path / "timing.jsonl").read_text() == '{"step": 2, "seconds": 1.5}\n'
    with pytest.raises(ValueError, match="was cut or replaced"):
        Journal(tmp_path, log_bytes=1_000)


def test_a_full_disk_while_logging_says_so() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    from isthmus.train.journal import append

    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="The last save is intact"):
        append(file, {"step": 1})


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    journal = Journal(tmp_path, tensorboard=True)
    journal.log(1, {"loss": 0.5})
    journal.close()
    written = list((tmp_path / "tensorboard").iterdir())
    assert len(written) == 1
    assert b"loss" in written[0].read_bytes()
