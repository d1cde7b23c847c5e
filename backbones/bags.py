"""Contexts as grids of word bags: the words of one thing share one position, as a picture's tokens would have it.

A language model that has only read sentences looks for a colour one token before the shape. A connector can say
everything about a thing in one token, or say it in several neighbouring ones. So a share of the contexts is written as
a grid of slots in raster order; a slot holds all words of the thing that covers it, its place included, or "empty", and
its embedding is the sum of its words' embeddings over the root of their number. It is made from text alone.
"""

from __future__ import annotations

import random

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.data.sources.world import CELLS, Box, Scene

MOST_WORDS = 8
SIDES = (4, 6, 6, 6, 8, 12)
"""Slots a side."""


def scene_slots(scene: Scene, rng: random.Random) -> tuple[tuple[str, ...], ...]:
    """The slots of a scene without a chart, row by row."""
    side = rng.choice(SIDES)
    slots: list[list[str]] = [[] for _ in range(side * side)]
    things = [(item.box, [item.size, item.colour, item.shape, CELLS[item.cell]]) for item in scene.items]
    for writing in scene.writings:
        kind = "number" if writing.text.isdigit() else "word"
        things.append((writing.box, [kind, writing.text, CELLS[writing.cell]]))
    for box, words in things:
        for place in _covered(box, side, rng):
            slots[place] += [f" {word}" for word in words]
    return tuple(tuple(words) if words else (" empty",) for words in slots)


def _covered(box: Box, side: int, rng: random.Random) -> list[int]:
    """Slots whose middle lies in the box, a few left out; at least the one in its middle."""
    left, top, right, bottom = box
    middle = int((top + bottom) / 2 * side) * side + int((left + right) / 2 * side)
    found = {middle}
    for row in range(side):
        for column in range(side):
            inside = top <= (row + 0.5) / side <= bottom and left <= (column + 0.5) / side <= right
            if inside and rng.random() < 0.9:
                found.add(row * side + column)
    return sorted(found)


def bag_ids(bags: list[list[tuple[int, ...]]], ids: Int[Tensor, "rows length"]) -> Int[Tensor, "rows length words"]:
    """The members of every position: a row's bags from its second position on, elsewhere the one token; else -1."""
    members = torch.full((*ids.shape, MOST_WORDS), -1)
    members[:, :, 0] = ids
    for row, found in enumerate(bags):
        for place, words in enumerate(found, start=1):
            some = words[:MOST_WORDS]
            members[row, place, : len(some)] = torch.tensor(some)
    return members


def embed_bags(table: nn.Module, members: Int[Tensor, "rows length words"]) -> Float[Tensor, "rows length width"]:
    """Sum of the members' embeddings over the root of their number."""
    there = members >= 0
    first: Tensor = table(members[:, :, 0])
    more = there[:, :, 1:].nonzero()
    added = table(members[:, :, 1:][there[:, :, 1:]])
    summed = first.reshape(-1, first.shape[2]).index_add(0, more[:, 0] * members.shape[1] + more[:, 1], added)
    return summed.view_as(first) / there.sum(2, keepdim=True) ** 0.5
