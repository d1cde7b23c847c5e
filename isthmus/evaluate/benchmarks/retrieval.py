"""Which picture does a description belong to? The language model's likelihood of the description decides."""

from isthmus.data.sample import Sample
from isthmus.data.sources.textbook import questions
from isthmus.evaluate.task import Split, Task


def _textbook(split: Split, num: int, seed: int) -> list[Sample]:
    return questions("retrieval", num, split=split, seed=seed)


TASKS: tuple[Task, ...] = (
    Task(
        name="retrieval/textbook",
        title="Description to figure, 1 of 8",
        kind="real images",
        make=_textbook,
        form="retrieval",
        share=0.25,
    ),
)
