"""A sample of OpenStax textbook figures with the descriptions, questions and credits that came with them.

Source: OpenStax, Rice University (CC BY 4.0); `bundled/textbook/README.md` lists repository and commit of every book.
The splits are by book section, as they came.
"""

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from isthmus.data.images import PackedImage
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.packed import read_packed
from isthmus.data.sources.wordings import (
    DESCRIBE,
    KIND_QUESTION,
    KINDS,
    SUBJECT_OF_BOOK,
    SUBJECT_QUESTION,
    SUBJECTS,
    clear_kind,
)

FOLDER = Path(__file__).parents[2] / "bundled" / "textbook"
CANDIDATES = 8
"""Pictures to choose from in description-to-image retrieval."""

TextbookTask = Literal["kind", "subject", "describe", "reading", "mixed"]
TextbookFamily = Literal["kind", "subject", "describe", "reading", "retrieval"]
TextbookSplit = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Figure:
    """One figure: its picture, what it shows, its tasks' answers ("" where it has none), its own short questions."""

    id: str
    image: PackedImage
    short: str
    kind: str
    subject: str
    credit: str
    reading: tuple[tuple[str, tuple[str, ...]], ...]


def _figure(row: dict[str, Any], image: PackedImage) -> _Figure:
    return _Figure(
        id=row["id"],
        image=image,
        short=row["description"][: row["short_chars"]],
        kind=clear_kind(row["kind"], row["type"]),
        subject=SUBJECT_OF_BOOK[row["book"]],
        credit=row["credit"],
        reading=tuple((asked["question"], tuple(asked["answers"])) for asked in row["questions"]),
    )


@lru_cache(maxsize=8)
def _figures(split: str, folder: Path) -> tuple[_Figure, ...]:
    if split not in get_args(TextbookSplit):
        raise ValueError(f"A split of Textbook is one of {get_args(TextbookSplit)}, got {split!r}.")
    return tuple(_figure(row, image) for row, image in read_packed(folder) if row["split"] == split)


def _asked(figure: _Figure, task: str) -> list[tuple[str, str]]:
    """The questions of a task that this figure has, each with one answer."""
    if task == "kind":
        return [(KIND_QUESTION, figure.kind)] if figure.kind else []
    if task == "subject":
        return [(SUBJECT_QUESTION, figure.subject)]
    if task == "describe":
        return [(DESCRIBE, figure.short)]
    return [(question, answers[0]) for question, answers in figure.reading]


@dataclass(frozen=True, kw_only=True)
class Textbook(SourceConfig):
    """One conversation a figure. "mixed" asks all that it has: kind, subject, reading, and a description last."""

    task: TextbookTask = "mixed"
    split: TextbookSplit = "train"

    def __post_init__(self) -> None:
        if self.task not in get_args(TextbookTask):
            raise ValueError(f"A task of Textbook is one of {get_args(TextbookTask)}, got {self.task!r}.")

    def build(self) -> Dataset:
        """The conversations, of figures that have the task."""
        tasks = ("kind", "subject", "reading", "describe") if self.task == "mixed" else (self.task,)
        found = [(figure, [one for task in tasks for one in _asked(figure, task)]) for figure in self._open()]
        return _Conversations([(figure, asked) for figure, asked in found if asked])

    def _open(self) -> tuple[_Figure, ...]:
        return _figures(self.split, FOLDER)


class _Conversations:
    def __init__(self, asked: list[tuple[_Figure, list[tuple[str, str]]]]) -> None:
        self._asked = asked

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> Sample:
        figure, asked = self._asked[checked(index, len(self))]
        turns: list[Turn] = []
        for question, answer in asked:
            mark = "" if turns else f"{IMAGE_MARK}\n"
            turns += [Turn(role="user", text=mark + question), Turn(role="assistant", text=answer)]
        return Sample(
            id=f"textbook/{figure.id}", turns=tuple(turns), images=(figure.image,), meta={"credit": figure.credit}
        )


def questions(family: TextbookFamily, num: int, *, split: TextbookSplit = "test", seed: int = 0) -> list[Sample]:
    """`num` held-out questions of one family, or as many as the split has.

    "describe" has metric "caption". "retrieval" asks which of `meta["candidates"]` (pictures; `meta["right"]` is the
    place of the right one, which is also the sample's image) a description belongs to. The group is the figure.

    Raises:
        ValueError: an unknown family or split.
    """
    if family not in get_args(TextbookFamily):
        raise ValueError(f"A family of textbook questions is one of {get_args(TextbookFamily)}, got {family!r}.")
    rng = random.Random(f"textbook questions {family} {split} {seed}")
    figures = list(_figures(split, FOLDER))
    rng.shuffle(figures)
    if family == "retrieval":
        return [_retrieval(figure, figures, rng) for figure in figures[:num]]
    return [sample for figure in figures for sample in _held_out(figure, family)][:num]


def _held_out(figure: _Figure, family: str) -> list[Sample]:
    closed = {"kind": KINDS, "subject": SUBJECTS}.get(family, ())
    metric = {"describe": "caption", "reading": "anls"}.get(family, "exact")
    asked: list[tuple[str, tuple[str, ...]]] = [(question, (answer,)) for question, answer in _asked(figure, family)]
    if family == "reading":
        asked = list(figure.reading)
    return [
        _question(
            f"textbook/{family}/{figure.id}/{place}",
            figure,
            question,
            {
                "family": f"textbook {family}",
                "answers": answers,
                "choices": closed,
                "chance": 1 / len(closed) if closed else 0.0,
                "metric": metric,
            },
        )
        for place, (question, answers) in enumerate(asked)
    ]


def _retrieval(figure: _Figure, figures: list[_Figure], rng: random.Random) -> Sample:
    others = rng.sample(
        [other for other in figures if other.id != figure.id and other.short != figure.short], CANDIDATES - 1
    )
    right = rng.randrange(CANDIDATES)
    shown = [other.image for other in others]
    shown.insert(right, figure.image)
    meta = {
        "family": "textbook retrieval",
        "answers": (figure.short,),
        "choices": (),
        "chance": 1 / CANDIDATES,
        "metric": "retrieval",
        "candidates": tuple(shown),
        "right": right,
    }
    return _question(f"textbook/retrieval/{figure.id}", figure, DESCRIBE, meta)


def _question(name: str, figure: _Figure, question: str, meta: dict[str, Any]) -> Sample:
    return Sample(
        id=name,
        turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),),
        images=(figure.image,),
        meta={**meta, "group": f"textbook/{figure.id}", "credit": figure.credit, "detail": {}},
    )
