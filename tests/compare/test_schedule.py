"""Jobs in order, results reused, a death tried once more, on a pool that lives in this process."""

import io
from collections import deque
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from isthmus.compare.jobs import Job, chosen_rate, job_folder
from isthmus.compare.pool import Event, Pool
from isthmus.compare.progress import StudyProgress
from isthmus.compare.results import JobResult, read_jobs, write_jobs
from isthmus.compare.schedule import Board, run_jobs


def job(root: Path, name: str, work: float = 1.0) -> Job:
    return Job(kind="tune", folder=root / name, work=work, path=work, name=name)


class Fake(Pool):
    """Ends every job at once, as its name says."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given: list[str] = []
        self.left: deque[tuple[int, Job]] = deque()

    def give(self, worker: int, job: object) -> None:
        known = cast(Job, job)
        self.given.append(known.name)
        self.left.append((worker, known))

    def events(self, timeout_s: float) -> list[Event]:
        worker, job = self.left.popleft()
        if job.name.startswith("die") and (job.name != "die once" or self.given.count(job.name) == 1):
            return [Event(kind="died", worker=worker, text="exit code 9")]
        if job.name.startswith("raise"):
            return [Event(kind="failed", worker=worker, text="ValueError: no\ntraceback")]
        job.finish(JobResult(job=job.name, kind="tune", validation_loss=1.0))
        return [Event(kind="progress", worker=worker, part=0.5, text="half"), Event(kind="done", worker=worker)]


def run(root: Path, names: dict[str, float], size: int = 1) -> tuple[Fake, Board, list[str]]:
    pool, board, lines = Fake(size), Board(), list[str]()
    jobs = [job(root, name, work) for name, work in names.items()]
    given = iter([jobs, []])
    run_jobs(pool, board, lambda board: next(given, []), lambda board, line: lines.append(line))
    return pool, board, [line for line in lines if line]


def test_the_longest_path_begins_first(tmp_path: Path) -> None:
    pool, board, _ = run(tmp_path, {"short": 1.0, "long": 9.0, "middle": 5.0})
    assert pool.given == ["long", "middle", "short"]
    assert [result.job for result in board.done.values()] == ["long", "middle", "short"]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run(tmp_path, {"a": 1.0})
    pool, board, _ = run(tmp_path, {"a": 1.0, "b": 1.0})
    assert pool.given == ["b"]
    assert len(board.done) == 2
    assert [one.name for one in board.reused] == ["a"]


def test_a_death_is_tried_once_more_and_an_error_is_not(tmp_path: Path) -> None:
    pool, board, lines = run(tmp_path, {"die once": 3.0, "die": 2.0, "raise": 1.0})
    assert pool.given == ["die once", "die once", "die", "die", "raise"]
    assert [one.name for one in board.done] == ["die once"]
    assert {one.name: why.splitlines()[0] for one, why in board.failed.items()} == {
        "die": "its worker died 2 times (exit code 9)",
        "raise": "ValueError: no",
    }
    assert any(line.startswith("again     die once") for line in lines)


def test_jobs_that_wait_for_others_begin_when_those_ended(tmp_path: Path) -> None:
    first, second = job(tmp_path, "raise first"), job(tmp_path, "second")
    given: set[str] = set()

    def plan(board: Board) -> list[Job]:
        ready = [one for one in (first, second) if one is first or board.ended(first)]
        new = [one for one in ready if one.name not in given]
        given.update(one.name for one in new)
        return new

    pool = Fake(2)
    board = Board()
    run_jobs(pool, board, plan, lambda board, line: None)
    assert pool.given == ["raise first", "second"]
    assert [one.name for one in board.done] == ["second"]


def test_progress_counts_the_work_to_come(tmp_path: Path) -> None:
    board = Board()
    board.add([job(tmp_path, "a", 6.0), job(tmp_path, "b", 2.0)])
    board.running[0] = board.waiting.pop(0)
    board.parts[0] = (0.5, "step 5/10")
    file = io.StringIO()
    with StudyProgress(show=True, workers=1, to_come=lambda: 2.0, console=Console(file=file, width=200)) as shown:
        shown(board, "started   a")
        assert shown.part_done(board) == 0.3
        left = shown.seconds_left(board)
        assert left is not None
        assert left >= 0.0
    said = file.getvalue()
    assert "started   a" in said
    assert "30% done" in said
    assert "a step 5/10" in said


def tuned(rate: float, loss: float, *, alike: bool = False) -> JobResult:
    return JobResult(job=f"rate {rate}", kind="tune", rate=rate, validation_loss=loss, alike=alike)


def test_the_lowest_mean_validation_loss_wins() -> None:
    assert chosen_rate([tuned(1e-3, 2.0), tuned(1e-3, 1.0), tuned(3e-3, 1.4), tuned(3e-3, 1.4)]) == 3e-3
    assert chosen_rate([tuned(3e-3, 1.0), tuned(1e-3, 1.0)]) == 1e-3
    assert chosen_rate([]) is None


def test_a_rate_that_makes_visual_tokens_alike_is_chosen_only_where_all_do() -> None:
    seeing = [tuned(5e-4, 1.35), tuned(1e-3, 1.30)]
    assert chosen_rate([*seeing, tuned(5e-3, 1.19, alike=True)]) == 1e-3
    assert chosen_rate([*seeing, tuned(1e-3, 1.30, alike=True), tuned(5e-3, 1.19, alike=True)]) == 5e-4
    assert chosen_rate([tuned(5e-4, 1.35, alike=True), tuned(5e-3, 1.19, alike=True)]) == 5e-3


def test_a_folder_changes_with_what_decides_the_result(tmp_path: Path) -> None:
    one = job_folder(tmp_path, "final", "q-former, 32 (x/..)", ("seed-1",), {"steps": 10})
    other = job_folder(tmp_path, "final", "q-former, 32 (x/..)", ("seed-1",), {"steps": 11})
    assert one != other
    assert one.parent == tmp_path / "jobs" / "final" / "q-former-32-x"


@pytest.mark.parametrize("watched", [None, (0.4, 0.5)])
def test_results_read_back_equal(tmp_path: Path, watched: tuple[float, float] | None) -> None:
    result = JobResult(
        job="a", kind="final", scores={"none": {"t": 0.5}}, train_curve=((1, 2.0),), validation_curve=((2, 1.0),),
        watched=watched,
    )  # fmt: skip
    write_jobs([result], tmp_path / "results.jsonl")
    assert read_jobs(tmp_path / "results.jsonl") == [result]
