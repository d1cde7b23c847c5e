"""One question, and the phrases that single out one item of a scene."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from isthmus.data.sources.world.describe import AT
from isthmus.data.sources.world.scene import Item, Scene

T = TypeVar("T")
Detail = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with one short lower-case answer.

    `choices` is the closed set the answer comes from and `chance` the expected accuracy of the best constant guess;
    `detail` says which kind of question of the family it is, and what an analysis groups by.
    """

    family: str
    text: str
    answer: str
    choices: tuple[str, ...]
    chance: float
    detail: Detail


Asker = Callable[[Scene, random.Random], Question | None]
"""Tries to ask one question of a kind; None when the scene (or the draw) offers none."""


def question(
    kind: str, text: str, answer: str, choices: tuple[str, ...], detail: Detail | None = None, chance: float = 0.0
) -> Question:
    """A question; `kind` is "family: kind". Its chance is one over the number of choices, or `chance` if more."""
    assert answer in choices, (kind, text, answer)
    family, _, sort = kind.partition(": ")
    return Question(
        family=family,
        text=text,
        answer=answer,
        choices=choices,
        chance=max(chance, 1 / len(choices)),
        detail={"kind": sort, **(detail or {})},
    )


_WORDINGS = (
    ("shape",),
    ("colour",),
    ("colour", "shape"),
    ("size", "shape"),
    ("size", "colour"),
    ("size", "colour", "shape"),
)


def names_of(scene: Scene, item: Item, *, hide: str = "") -> list[str]:
    """The phrases that fit this item and no other, shortest first, without saying its `hide` (size, colour or shape).

    Next to a chart every phrase says the shape, since bars and lines have colours too.
    """
    found = []
    for words in _WORDINGS:
        if hide in words or (scene.chart is not None and "shape" not in words):
            continue
        same = [other for other in scene.items if all(getattr(other, word) == getattr(item, word) for word in words)]
        if len(same) == 1:
            noun = [] if "shape" in words else ["thing"]
            found.append(" ".join(["the", *(str(getattr(item, word)) for word in words), *noun]))
    return found


def refer(scene: Scene, item: Item, rng: random.Random, *, hide: str = "", by_cell: bool = False) -> str | None:
    """One phrase for this item alone: mostly a short one, `by_cell` sometimes its place; None when nothing fits."""
    names = names_of(scene, item, hide=hide)
    if by_cell and scene.chart is None and (not names or rng.random() < 0.25):
        noun = f"the {item.shape}" if hide != "shape" and rng.random() < 0.3 else "the thing"
        return f"{noun} {AT[item.cell]}"
    if not names:
        return None
    return names[0] if rng.random() < 0.6 else rng.choice(names)


def pick(rng: random.Random, options: dict[str, list[T]], weights: dict[str, float]) -> tuple[str, T] | None:
    """An answer among those that the scene offers, by weight, then any of its options; None when there is none."""
    answers = [answer for answer in options if options[answer]]
    if not answers:
        return None
    answer = rng.choices(answers, [weights[answer] for answer in answers])[0]
    return answer, rng.choice(options[answer])
