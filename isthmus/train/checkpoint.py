"""Saves that are whole or absent: written beside, synced, renamed. Nothing is pickled.

`state/step-00000500/` holds `weights.safetensors`, `optimizer.safetensors` and `state.json`. The newest folder of this
form is the save to resume from; anything else under `state/` is a leftover of a save that was cut short.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from isthmus import weights
from isthmus.runs import STATE_FOLDER, WEIGHTS_FILE

_OPTIMIZER_FILE = "optimizer.safetensors"
_STATE_FILE = "state.json"
_PREFIX = "step-"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A whole save, open for reading."""

    folder: Path
    step: int
    state: dict[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """The trained tensors by dotted name."""
        return weights.load_safetensors(self.folder / WEIGHTS_FILE)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors by `parameter name|entry`."""
        return weights.load_safetensors(self.folder / _OPTIMIZER_FILE)


def save(
    run: Path, step: int, *, trained: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write the save of `step`, publish its weights as the run's, and remove older saves.

    Killed at any moment, either the save before or this one is whole.

    Raises:
        OSError: it cannot be written (no space left, say); the save before stays as it was.
    """
    folder = run / STATE_FOLDER
    final = folder / f"{_PREFIX}{step:08d}"
    with cleared_up(f"the save of step {step}", folder / f"partial-{step:08d}") as partial:
        partial.mkdir(parents=True)
        write_tensors(partial / WEIGHTS_FILE, trained)
        write_tensors(partial / _OPTIMIZER_FILE, optimizer)
        _write_synced(partial / _STATE_FILE, json.dumps({"step": step, **state}, indent=1).encode())
        _sync(partial)
        assert not final.exists(), f"step {step} was saved before"
        os.rename(partial, final)
        _sync(folder)
    publish_weights(run, step)
    _remove_older(folder, step)


def latest(run: Path) -> Saved | None:
    """The newest whole save of a run folder, or None before the first."""
    folder = run / STATE_FOLDER
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    steps = [int(name.removeprefix(_PREFIX)) for name in names if _is_save(name)]
    if not steps:
        return None
    newest = folder / f"{_PREFIX}{max(steps):08d}"
    return Saved(folder=newest, step=max(steps), state=json.loads((newest / _STATE_FILE).read_bytes()))


def remove_leftovers(run: Path) -> None:
    """Remove what a save that was cut short left behind, and saves older than the newest."""
    newest = latest(run)
    folder = run / STATE_FOLDER
    for path in folder.glob("partial-*"):
        shutil.rmtree(path)
    for path in run.glob("*.partial"):
        path.unlink()
    if newest is not None:
        _remove_older(folder, newest.step)


def publish_weights(run: Path, step: int) -> None:
    """Make the run's `weights.safetensors` the one of this save: a second name of the file, or a copy."""
    source = run / STATE_FOLDER / f"{_PREFIX}{step:08d}" / WEIGHTS_FILE
    with cleared_up("the run's weights", run / f"{WEIGHTS_FILE}.partial") as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
            _sync(partial)
        os.replace(partial, run / WEIGHTS_FILE)
        partial.unlink(missing_ok=True)  # a rename between two names of one file does nothing
        _sync(run)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that it is whole or absent. Raises OSError when it cannot be written."""
    with cleared_up(str(path), path.with_name(f"{path.name}.partial")) as partial:
        _write_synced(partial, content)
        os.replace(partial, path)
        _sync(path.parent)


def write_tensors_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file so that it is whole or absent. Raises OSError when it cannot be written."""
    with cleared_up(str(path), path.with_name(f"{path.name}.partial")) as partial:
        write_tensors(partial, tensors)
        os.replace(partial, path)
        _sync(path.parent)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write and sync a safetensors file. Raises OSError when it cannot be written."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except Exception as error:
        if "os error 28" in str(error).lower() or "no space" in str(error).lower():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    _sync(path)


@contextmanager
def cleared_up(what: str, partial: Path) -> Iterator[Path]:
    """Give a free partial name; remove what stands there when writing fails, and say what failed and what is safe."""
    _remove(partial)
    try:
        yield partial
    except OSError as error:
        _remove(partial)
        raise OSError(
            error.errno,
            f"Cannot write {what}: {error.strerror}. What was saved before is intact. "
            f"Make room (or repair the disk), then resume the run with --resume",
            str(partial.parent),
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_save(name: str) -> bool:
    return name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdigit()


def _remove_older(folder: Path, step: int) -> None:
    for path in folder.iterdir():
        if _is_save(path.name) and int(path.name.removeprefix(_PREFIX)) < step:
            dying = folder / f"partial-old-{path.name}"
            _remove(dying)
            os.rename(path, dying)
            _remove(dying)


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
