"""Give jobs to workers: what unlocks or takes most first, until a plan has no more.

A worker's death costs its job one more try; after that the job is reported as failed. A job that raises is not tried
again: it would raise again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.compare.jobs import Job
from isthmus.compare.pool import Event, Pool
from isthmus.compare.results import JobResult

TRIES = 2


@dataclass(kw_only=True)
class Board:
    """What is waiting, running, done and lost."""

    waiting: list[Job] = field(default_factory=list)
    running: dict[int, Job] = field(default_factory=dict)
    parts: dict[int, tuple[float, str]] = field(default_factory=dict)
    """Of each busy worker: the part of its job done, and a few words."""
    done: dict[Job, JobResult] = field(default_factory=dict)
    failed: dict[Job, str] = field(default_factory=dict)
    deaths: dict[Job, int] = field(default_factory=dict)
    reused: set[Job] = field(default_factory=set)
    """Jobs whose results were there before."""

    def add(self, jobs: list[Job]) -> None:
        """New jobs; those that are done already are only read."""
        for job in jobs:
            if job.done:
                self.done[job] = job.result()
                self.reused.add(job)
            else:
                self.waiting.append(job)
        self.waiting.sort(key=lambda job: -job.path)

    def ended(self, job: Job) -> bool:
        """Whether a job is done or failed for good."""
        return job in self.done or job in self.failed

    @property
    def work_left(self) -> float:
        """FLOPs of what waits and of what is left of what runs."""
        left = sum(job.work for job in self.waiting)
        return left + sum(job.work * (1.0 - self.parts[worker][0]) for worker, job in self.running.items())

    @property
    def work_done(self) -> float:
        """FLOPs of what was done in this call, parts of running jobs included."""
        running = sum(job.work * self.parts[worker][0] for worker, job in self.running.items())
        return sum(job.work for job in self.done if job not in self.reused) + running


Plan = Callable[[Board], list[Job]]
"""Given the board, the jobs that may now begin and were not given before."""
Show = Callable[[Board, str], None]
"""Called with the board about once a second; the text is a line worth keeping ("" mostly)."""


def run_jobs(pool: Pool, board: Board, plan: Plan, show: Show) -> None:
    """Run what the plan gives until it gives nothing more and nothing runs."""
    _extend(board, plan)
    while board.waiting or board.running:
        idle = [worker for worker in range(pool.size) if worker not in board.running]
        for worker in idle[: len(board.waiting)]:
            job = board.waiting.pop(0)
            board.running[worker], board.parts[worker] = job, (0.0, "starting")
            pool.give(worker, job)
            show(board, f"started   {job.name}")
        events = pool.events(timeout_s=1.0)
        for event in events:
            show(board, _note(board, event))
        if any(event.kind != "progress" for event in events):
            _extend(board, plan)
        show(board, "")


def _extend(board: Board, plan: Plan) -> None:
    """Add what the plan gives, again while all of it was done before."""
    while new := plan(board):
        board.add(new)


def _note(board: Board, event: Event) -> str:
    """Write an event on the board; the text is a line worth keeping."""
    job = board.running.get(event.worker)
    if job is None:
        return ""
    if event.kind == "progress":
        board.parts[event.worker] = (event.part, event.text)
        return ""
    del board.running[event.worker], board.parts[event.worker]
    if event.kind == "done":
        board.done[job] = job.result()
        return f"finished  {job.name}"
    if event.kind == "died":
        board.deaths[job] = board.deaths.get(job, 0) + 1
        if board.deaths[job] < TRIES:
            board.waiting.insert(0, job)
            return f"again     {job.name}: its worker died ({event.text})"
        board.failed[job] = f"its worker died {TRIES} times ({event.text})"
        return f"lost      {job.name}: {board.failed[job]}"
    board.failed[job] = event.text
    return f"failed    {job.name}: {event.text.splitlines()[0]}"
