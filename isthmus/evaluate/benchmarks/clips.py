"""Clips: later moments of the bundled ones, and things of the exact world that move, with two controls of order."""

from collections.abc import Callable

from isthmus.data.sample import Sample
from isthmus.data.sources import moving_things, real_clips
from isthmus.data.sources.moving_things import Shown
from isthmus.evaluate.task import Split, Task


def _sentence(split: Split, num: int, seed: int) -> list[Sample]:
    return real_clips.questions(num, split=split, seed=seed)


def _moves(shown: Shown) -> Callable[[Split, int, int], list[Sample]]:
    def make(split: Split, num: int, seed: int) -> list[Sample]:
        return moving_things.questions(num, split=split, seed=seed, shown=shown)

    return make


def _moving(name: str, title: str, shown: Shown) -> Task:
    return Task(name=f"clips/{name}", title=title, kind="exact world", make=_moves(shown))


TASKS: tuple[Task, ...] = (
    Task(name="clips/sentence", title="Which clip: its sentence", kind="real clips", make=_sentence),
    _moving("moves", "Which way a thing moves", "moving"),
    _moving("shuffled", "The same, frames shuffled", "shuffled"),
    _moving("still", "The same, first frame alone", "still"),
)
"""Of "shuffled" nobody can know more than half, of "still" no more than a quarter."""
