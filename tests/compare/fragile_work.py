"""Real work whose worker is killed once, in the middle of the first judged run."""

import os
import signal
from collections.abc import Callable

from isthmus.compare.jobs import Job
from isthmus.compare.work import work


def fragile(job: Job, report: Callable[[float, str], None]) -> None:
    """Do the job; at seed 1 of the arm "linear" the worker is killed at its second step, once."""
    mark = job.folder / "killed"

    def watch(part: float, words: str) -> None:
        report(part, words)
        if job.kind == "final" and (job.arm, job.seed) == ("linear", 1) and "step" in words and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    work(job, watch)
