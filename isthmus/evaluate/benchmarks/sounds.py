"""Spoken digits of speakers that neither the bundled ear nor a connector trained on the bundled data ever heard."""

from isthmus.data.sample import Sample
from isthmus.data.sources.spoken_digits import questions
from isthmus.evaluate.task import Split, Task


def _digit(split: Split, num: int, seed: int) -> list[Sample]:
    return questions(num, split=split, seed=seed)


TASKS: tuple[Task, ...] = (
    Task(name="sounds/digit", title="Digits of unheard speakers", kind="real sounds", make=_digit),
)
