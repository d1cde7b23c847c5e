"""Every benchmark by its exact name."""

from isthmus.evaluate.benchmarks import nlvr, retrieval, textbook, world
from isthmus.evaluate.task import Task

BENCHMARKS: dict[str, Task] = {
    task.name: task for task in (*world.TASKS, *textbook.TASKS, *nlvr.TASKS, *retrieval.TASKS)
}

DEFAULT_TASKS: tuple[str, ...] = tuple(BENCHMARKS)
