"""NLVR's boxes: people's sentences that are true or false, and exact questions from the object lists."""

from isthmus.data.sample import Sample
from isthmus.data.sources.nlvr import questions
from isthmus.evaluate.task import Split, Task


def _truth(split: Split, num: int, seed: int) -> list[Sample]:
    return questions("truth", num, split=split, seed=seed)


def _exact(split: Split, num: int, seed: int) -> list[Sample]:
    return questions("exact", num, split=split, seed=seed)


TASKS: tuple[Task, ...] = (
    Task(name="nlvr/truth", title="Is the sentence true?", kind="real images", make=_truth),
    Task(name="nlvr/exact", title="Boxes, exact questions", kind="real images", make=_exact),
)
