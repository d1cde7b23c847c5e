"""How a study goes: live bars in a terminal, plain lines elsewhere, the time left in both."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isthmus.compare.schedule import Board
from isthmus.train.progress import format_seconds

_PLAIN_EVERY_S = 15.0
_ENOUGH = 0.02
"""The share of all work to have done before the time left is guessed."""


class StudyProgress:
    """Shows a board; a context manager, so that the terminal is left clean. `to_come` is work without jobs yet."""

    def __init__(
        self, *, show: bool, workers: int, to_come: Callable[[], float], console: Console | None = None
    ) -> None:
        self.console = Console(stderr=True) if console is None else console
        self.show = show
        self.workers = workers
        self.to_come = to_come
        self.begun = time.monotonic()
        self.work_begun: float | None = None
        self.last_line = float("-inf")
        self.live: Live | None = None

    def __enter__(self) -> "StudyProgress":
        if self.show and self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, board: Board, line: str) -> None:
        """Show the board; keep `line` above it when there is one."""
        if self.work_begun is None and any(job.work for job in board.running.values()):
            self.work_begun = time.monotonic()
        if not self.show:
            return
        if line:
            self._print(f"{format_seconds(time.monotonic() - self.begun):>7}  {line}")
        if self.live is not None:
            self.live.update(self._drawn(board))
        elif time.monotonic() - self.last_line >= _PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            running = "; ".join(f"{job.name} {board.parts[worker][1]}" for worker, job in sorted(board.running.items()))
            self._print(f"{format_seconds(time.monotonic() - self.begun):>7}  {self._summary(board)}  [{running}]")

    def _print(self, text: str) -> None:
        self.console.print(Text(text), highlight=False, soft_wrap=True)

    def part_done(self, board: Board) -> float:
        """The share of all work that is done, 0..1; what was done before this call counts for nothing."""
        total = board.work_done + board.work_left + self.to_come()
        return board.work_done / total if total else 0.0

    def seconds_left(self, board: Board) -> float | None:
        """A guess from the pace so far; None until there is one."""
        part = self.part_done(board)
        if self.work_begun is None or part < _ENOUGH:
            return None
        return (time.monotonic() - self.work_begun) * (1.0 - part) / part

    def _summary(self, board: Board) -> str:
        left = self.seconds_left(board)
        said = f"{100 * self.part_done(board):.0f}% done, {len(board.done)} jobs finished"
        if board.reused:
            said += f" ({len(board.reused)} before)"
        return said + ("" if left is None else f", about {format_seconds(left)} left")

    def _drawn(self, board: Board) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_row(
            Text("study", style="bold"), ProgressBar(total=1.0, completed=self.part_done(board), width=28),
            Text(self._summary(board)),
        )  # fmt: skip
        for worker in range(self.workers):
            job = board.running.get(worker)
            part, words = board.parts.get(worker, (0.0, "waiting"))
            name = "" if job is None else job.name
            table.add_row(Text(name), ProgressBar(total=1.0, completed=part, width=28), Text(words, style="dim"))
        return Group(table)
