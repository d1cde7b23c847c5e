"""Hints: what a token already knows when the words before it single out one thing of the scene.

An answer alone tells a small model very little of how to find it. So while it learns, linear heads on its inner layers
also say what each mention of a thing refers to: at the end of a mention in the context its size, colour, shape and
cell; the same at the end of a phrase in a question; and at the second phrase of a question which relation is asked,
how the two things stand, and whether the answer is yes. The heads are thrown away afterwards. All of it is made from
the texts' own scenes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.sources.world import CELLS, COLOURS, SHAPES, Item, Scene
from isthmus.data.sources.world.describe import AT
from isthmus.data.sources.world.scene import SIZES

UNKNOWN = -100
CONTEXT, PHRASE, PAIR, VERDICT = range(4)
VERDICTS = ("no", "yes")
RELATIONS = (("left of",), ("right of",), ("above", "higher"), ("below", "lower"), ("bigger",), ("smaller",))
DEPTHS = (1 / 3, 1 / 2, 2 / 3, 5 / 6)
"""After which share of the layers the heads of each kind read."""
CHOICES = ((len(COLOURS), len(SHAPES), len(SIZES), len(CELLS)),) * 2 + ((3, 3, 3, 6), (2,))


def _one_of(words: tuple[str, ...]) -> str:
    return "(" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_PLACE = _one_of((*CELLS, *AT))
_NAME = f"{_one_of(SIZES)} {_one_of(COLOURS)} {_one_of(SHAPES)}"
_NAMED = re.compile(rf"{_NAME}\b")
_THEN_PLACE = re.compile(rf"{_NAME}(?:,| is)? {_PLACE}\b")
_PLACE_THEN = re.compile(rf"{_PLACE}(?::| is an?| there is an?) {_NAME}\b", re.IGNORECASE)
_PHRASE = re.compile(
    rf"\bthe (?:{_one_of(SIZES)} )?(?:{_one_of(COLOURS)} )?{_one_of((*SHAPES, 'thing'))}(?: {_one_of(AT)})?\b"
)


@dataclass(frozen=True, kw_only=True)
class Hint:
    """At the end of text[:end], what is known; UNKNOWN where nothing is."""

    kind: int
    end: int
    labels: tuple[int, ...]


def _labels(colour: str, shape: str, size: str, place: str | None) -> tuple[int, ...]:
    cell = UNKNOWN
    if place is not None:
        cell = CELLS.index(place.lower()) if place.lower() in CELLS else AT.index(place.lower())
    return COLOURS.index(colour), SHAPES.index(shape), SIZES.index(size), cell


def context_hints(text: str) -> tuple[Hint, ...]:
    """Of a described scene: every full name, and its place where it stands right beside it."""
    found: dict[int, tuple[int, ...]] = {}
    for match in _NAMED.finditer(text):
        found[match.end()] = _labels(match[2], match[3], match[1], None)
    for match in _PLACE_THEN.finditer(text):
        found[match.end()] = _labels(match[3], match[4], match[2], match[1])
    for match in _THEN_PLACE.finditer(text):
        found[match.end()] = _labels(match[2], match[3], match[1], match[4])
    return tuple(Hint(kind=CONTEXT, end=end, labels=labels) for end, labels in sorted(found.items()))


def question_hints(text: str, answer: str, scene: Scene) -> tuple[Hint, ...]:
    """Of a question: every phrase that fits one thing of the scene, and how the second stands to the first."""
    hints: list[Hint] = []
    things: list[Item] = []
    for match in _PHRASE.finditer(text):
        size, colour, shape, place = match.groups()
        fitting = [
            item
            for item in scene.items
            if (size is None or item.size == size)
            and (colour is None or item.colour == colour)
            and (shape == "thing" or item.shape == shape)
            and (place is None or AT[item.cell] == place)
        ]
        if len(fitting) == 1:
            item = fitting[0]
            things.append(item)
            labels = _labels(item.colour, item.shape, item.size, CELLS[item.cell])
            hints.append(Hint(kind=PHRASE, end=match.end(), labels=labels))
            if len(things) == 2:
                hints.append(Hint(kind=PAIR, end=match.end(), labels=(*_standing(*things), _relation(text))))
                if answer in VERDICTS:
                    hints.append(Hint(kind=VERDICT, end=match.end(), labels=(VERDICTS.index(answer),)))
    return tuple(hints)


def _standing(first: Item, second: Item) -> tuple[int, ...]:
    """Rows, columns and sizes of the second against the first's: 0 less, 1 equal, 2 more."""
    (row, column), (other_row, other_column) = divmod(first.cell, 3), divmod(second.cell, 3)
    pairs = ((row, other_row), (column, other_column), (SIZES.index(first.size), SIZES.index(second.size)))
    return tuple(1 + (theirs > ours) - (theirs < ours) for ours, theirs in pairs)


def _relation(text: str) -> int:
    found = [place for place, words in enumerate(RELATIONS) if any(word in text for word in words)]
    return found[0] if len(found) == 1 else UNKNOWN


Placed = tuple[int, int, int, tuple[int, ...]]
"""A hint in a batch: its kind, row, position and labels."""


class HintHeads(nn.Module):
    """Linear heads for every kind of hint."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, sum(choices)) for choices in CHOICES)

    def forward(self, hidden_states: tuple[Tensor, ...], hints: list[Placed]) -> dict[str, Tensor]:
        """The mean cross-entropy of every kind that the batch has."""
        losses: dict[str, Tensor] = {}
        layers = len(hidden_states) - 1
        for kind, name in enumerate(("mention", "phrase", "pair", "verdict")):
            chosen = [(row, place, labels) for found, row, place, labels in hints if found == kind]
            if not chosen:
                continue
            hidden = hidden_states[round(DEPTHS[kind] * layers)]
            rows, places = torch.tensor([one[0] for one in chosen]), torch.tensor([one[1] for one in chosen])
            said = self.heads[kind](F.rms_norm(hidden[rows, places], (hidden.shape[2],)))
            labels = torch.tensor([one[2] for one in chosen])
            parts = zip(torch.split(said, CHOICES[kind], dim=1), labels.unbind(1), strict=True)
            losses[name] = torch.stack([_mean(logits, wanted) for logits, wanted in parts]).mean()
        return losses


def _mean(logits: Tensor, wanted: Tensor) -> Tensor:
    known = (wanted != UNKNOWN).sum().clamp(min=1)
    return F.cross_entropy(logits, wanted, ignore_index=UNKNOWN, reduction="sum") / known
