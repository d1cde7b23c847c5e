"""Textbook figures: what kind of figure, which subject, and what is written in it."""

from collections.abc import Callable

from isthmus.data.sample import Sample
from isthmus.data.sources.textbook import TextbookFamily, questions
from isthmus.evaluate.task import Split, Task


def _family(family: TextbookFamily) -> Callable[[Split, int, int], list[Sample]]:
    def make(split: Split, num: int, seed: int) -> list[Sample]:
        return questions(family, num, split=split, seed=seed)

    return make


TASKS: tuple[Task, ...] = (
    Task(name="textbook/kind", title="Kind of figure", kind="real images", make=_family("kind")),
    Task(name="textbook/subject", title="Subject of the book", kind="real images", make=_family("subject")),
    Task(name="textbook/reading", title="Reading a figure (ANLS)", kind="real images", make=_family("reading")),
)
