"""Show how a run goes: a bar in a terminal, plain lines elsewhere, a call for whoever watches from outside."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

Phase = Literal["lengths", "features", "train", "validate"]
_PLAIN_EVERY_S = 10.0
_CALL_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is. `done` of `total` are samples while lengths are checked, then images while features are computed,
    then steps."""

    name: str
    phase: Phase
    done: int
    total: int
    loss: float | None = None
    samples_per_s: float | None = None
    tokens_per_s: float | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        parts = [f"{self.name} {self.phase} {self.done}/{self.total}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.samples_per_s is not None:
            parts.append(f"{self.samples_per_s:.1f} samples/s")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.0f} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"{format_seconds(self.seconds_left)} left")
        return "  ".join(parts)


def format_seconds(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressDisplay:
    """Shows the newest `Progress`; a context manager, so the terminal is left clean when a run dies."""

    def __init__(self, *, show: bool, call: Callable[[Progress], None] | None, console: Console | None = None) -> None:
        self.call = call
        self.console = Console(stderr=True) if console is None else console
        self.show = show
        self.bar: Bar | None = None
        self.last_call = self.last_line = float("-inf")
        self.phase: Phase | None = None

    def __enter__(self) -> "ProgressDisplay":
        if self.show and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self.bar = Bar(*columns, console=self.console, refresh_per_second=4)
            self.bar.start()
            self.task = self.bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, lines: Sequence[str]) -> None:
        """Print these lines, above the bar where there is one."""
        if self.show:
            for line in lines:
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @property
    def due(self) -> bool:
        """Whether an update would be seen now; lets the loop skip making one."""
        return time.monotonic() - self.last_call >= _CALL_EVERY_S

    def update(self, progress: Progress) -> None:
        """Show this; the first of a phase and the last always, others about once a second."""
        now = time.monotonic()
        edge = progress.phase != self.phase or progress.done >= progress.total
        if not edge and not self.due:
            return
        self.phase, self.last_call = progress.phase, now
        if self.call is not None:
            self.call(progress)
        if self.bar is not None:
            self.bar.update(self.task, description=str(progress), completed=progress.done, total=progress.total)
        elif self.show and (edge or now - self.last_line >= _PLAIN_EVERY_S):
            self.last_line = now
            self.console.print(str(progress), highlight=False, soft_wrap=True)
