"""Every benchmark by its exact name."""

from isthmus.evaluate.benchmarks.clips import TASKS as CLIPS
from isthmus.evaluate.benchmarks.detail import TASKS as DETAIL
from isthmus.evaluate.benchmarks.nlvr import TASKS as NLVR
from isthmus.evaluate.benchmarks.retrieval import TASKS as RETRIEVAL
from isthmus.evaluate.benchmarks.sounds import TASKS as SOUNDS
from isthmus.evaluate.benchmarks.textbook import TASKS as TEXTBOOK
from isthmus.evaluate.benchmarks.world import TASKS as WORLD
from isthmus.evaluate.task import Task

BENCHMARKS: dict[str, Task] = {
    task.name: task for task in (*WORLD, *TEXTBOOK, *NLVR, *RETRIEVAL, *SOUNDS, *CLIPS, *DETAIL)
}

_NAMED = {"world/grounding", "world/in-box", *(task.name for task in (*SOUNDS, *CLIPS, *DETAIL))}
DEFAULT_TASKS: tuple[str, ...] = tuple(name for name in BENCHMARKS if name not in _NAMED)
"""What is asked when nothing is named: all but boxes, sounds, clips and small things, for models trained on them."""
