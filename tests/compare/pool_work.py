"""Work for the pool's tests: what a worker does is written in the folder it is given."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def tell(path: Path, word: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(word + "\n")


def behave(job: Any, report: Callable[[float, str], None]) -> None:
    """Do as the job's name says, and leave a line for every attempt."""
    kind, folder = job
    tell(Path(folder) / kind, f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}")
    report(0.5, "half way")
    if kind == "raise":
        raise ValueError("this cannot be done")
    if kind == "die" or (kind == "die-once" and len((Path(folder) / kind).read_text().splitlines()) == 1):
        os._exit(9)
    time.sleep(0.01)
