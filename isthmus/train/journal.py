"""What a run writes as it goes: `log.jsonl`, equal for equal runs, and `timing.jsonl`, which holds the wall-clock."""

import errno
import importlib.util
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from isthmus.runs import LOG_FILE, TIMING_FILE

Value = int | float | str | None


class Journal:
    """Appends lines to a run's logs, and scalars to tensorboard when it is wanted and installed.

    Opened at `log_bytes`, the length of `log.jsonl` at the save that is resumed: what was logged after it is cut off,
    for the resumed steps write the same lines again.

    Raises:
        ValueError: `log.jsonl` is shorter than at the save.
    """

    def __init__(self, run: Path, *, log_bytes: int = 0, step: int = 0, tensorboard: bool = False) -> None:
        path = run / LOG_FILE
        size = path.stat().st_size if path.is_file() else 0
        if size < log_bytes:
            raise ValueError(f"{path} has {size} bytes, but had {log_bytes} when saved: it was cut or replaced.")
        self.log_file: FileIO = open(path, "ab", buffering=0)  # noqa: SIM115  (closed by `close`)
        self.log_file.truncate(log_bytes)
        self.log_file.seek(0, os.SEEK_END)
        self.timing_file: FileIO = open(run / TIMING_FILE, "ab", buffering=0)  # noqa: SIM115
        self.board = _board(run, step) if tensorboard else None

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Append one line of values that equal runs share. Raises OSError when the disk is full."""
        append(self.log_file, {"step": step, **values})
        self._draw(step, values)

    def time(self, step: int, values: Mapping[str, Value]) -> None:
        """Append one line of wall-clock values."""
        append(self.timing_file, {"step": step, **values})
        self._draw(step, values)

    def sync(self) -> int:
        """Put the log on the disk for good, and say how many bytes it has."""
        os.fsync(self.log_file.fileno())
        return os.fstat(self.log_file.fileno()).st_size

    def close(self) -> None:
        """Close the files."""
        self.log_file.close()
        self.timing_file.close()
        if self.board is not None:
            self.board.close()

    def _draw(self, step: int, values: Mapping[str, Value]) -> None:
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, step)


def append(file: FileIO, line: dict[str, Value]) -> None:
    """Append one line of JSON, whole. Raises OSError, saying what is safe, when the disk is full."""
    content = json.dumps(line).encode() + b"\n"
    try:
        written = file.write(content)
        if written != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(
            error.errno,
            f"Cannot write the log: {error.strerror}. The last save is intact. Make room, then resume with --resume",
            str(file.name),
        ) from error


def _board(run: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("tensorboard is not installed. Install it (pip install 'isthmus[train]'), or leave it off.")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
