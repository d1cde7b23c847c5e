"""Sounds: digits of speakers that neither the bundled ear nor its connectors ever heard, nothing said, your ESC-10."""

from collections.abc import Callable

from isthmus.data.sample import Sample
from isthmus.data.sources import esc10
from isthmus.data.sources.made_sounds import nothing_said
from isthmus.data.sources.spoken_digits import presence, questions
from isthmus.evaluate.task import Split, Task


def _digit(split: Split, num: int, seed: int) -> list[Sample]:
    return questions(num, split=split, seed=seed)


def _present(split: Split, num: int, seed: int) -> list[Sample]:
    return presence(num, there=True, split=split, seed=seed)


def _absent(split: Split, num: int, seed: int) -> list[Sample]:
    return presence(num, there=False, split=split, seed=seed)


def _nothing(split: Split, num: int, seed: int) -> list[Sample]:
    return nothing_said(num, seed=seed + 1 if split == "train" else seed)


def _esc10(split: Split, num: int, seed: int) -> list[Sample]:
    """Folds that the ear never heard; those that it was trained on for "train"."""
    return esc10.questions(num, folds=esc10.HEARD if split == "train" else esc10.UNHEARD, seed=seed)


def _task(name: str, title: str, make: Callable[[Split, int, int], list[Sample]]) -> Task:
    return Task(name=f"sounds/{name}", title=title, kind="real sounds", make=make)


TASKS: tuple[Task, ...] = (
    _task("digit", "Digits of unheard speakers", _digit),
    _task("present", "A digit that is said: yes", _present),
    _task("absent", "Another digit is said: no", _absent),
    _task("nothing", "Silence, noise, a tone: no", _nothing),
    _task("esc10", "Kinds of sounds (your ESC-10)", _esc10),
)
"""The share of "absent" and "nothing" that is missed is what the model hears that is not there."""
