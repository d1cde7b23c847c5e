"""Scenes of the exact world whose things have a stated height in pixels: what a view still shows, and what it loses."""

from __future__ import annotations

import random

from isthmus.data.sources.world import CELLS, RGB, Box, Item, Scene, Split, Writing, bucket
from isthmus.data.sources.world.backgrounds import draw_background
from isthmus.data.sources.world.fonts import FONTS, ink_size
from isthmus.data.sources.world.plan import ALLOWED, Kind
from isthmus.data.sources.world.style import REFERENCE_PX

_TRIES = 200
_MARGIN = 0.01
"""Least distance between a thing and the edge of its cell."""
TALLEST = 26.0
"""What fits into a cell of the 3 x 3 grid, in pixels of a 96 px picture."""


def small_scene(seed: str, split: Split, *, items: int, numbers: int, heights: tuple[float, ...]) -> Scene:
    """Items of different colours and shapes and one-digit numbers, each in a cell of its own with a height of its own.

    `heights` are pixels of a 96 px picture. The content decides the split, as everywhere in the exact world. Size is
    never told: every item is "small".
    """
    rng = random.Random(f"small scene {split} {seed}")
    for _ in range(_TRIES):
        scene = _drawn(rng, split, items, numbers, heights)
        if bucket(scene.key()) == split:
            return scene
    raise AssertionError(f"no scene of {split} in {_TRIES} draws, of which a tenth should be")


def _drawn(rng: random.Random, split: Split, items: int, numbers: int, heights: tuple[float, ...]) -> Scene:
    background = draw_background(rng)
    cells = rng.sample(range(len(CELLS)), items + numbers)
    things = [
        _item(rng, kind, cell, rng.choice(heights)) for kind, cell in zip(_kinds(rng, items), cells, strict=False)
    ]
    digits = rng.sample("0123456789", numbers)
    written = [
        _writing(rng, text, cell, rng.choice(heights), plate=background.kind in ("noise", "stripes", "checker"))
        for text, cell in zip(digits, cells[items:], strict=True)
    ]
    return Scene(
        seed=0,
        split=split,
        background=background,
        items=tuple(sorted(things, key=lambda item: item.cell)),
        writings=tuple(sorted(written, key=lambda writing: writing.cell)),
        chart=None,
        distractors=(),
    )


def _kinds(rng: random.Random, count: int) -> list[Kind]:
    """Pairs of colour and shape, no colour and no shape twice, none of the held-out ones."""
    chosen: list[Kind] = []
    while len(chosen) < count:
        colour, shape = rng.choice(ALLOWED)
        if all(colour != other[0] and shape != other[1] for other in chosen):
            chosen.append((colour, shape))
    return chosen


def _place(rng: random.Random, cell: int, width: float, height: float) -> Box:
    row, column = divmod(cell, 3)
    x = column / 3 + rng.uniform(_MARGIN, 1 / 3 - _MARGIN - width)
    y = row / 3 + rng.uniform(_MARGIN, 1 / 3 - _MARGIN - height)
    return (x, y, x + width, y + height)


def _item(rng: random.Random, kind: Kind, cell: int, height: float) -> Item:
    side = height / REFERENCE_PX
    colour, shape = kind
    return Item(shape=shape, colour=colour, size="small", cell=cell, box=_place(rng, cell, side, side), rgb=RGB[colour])


def _writing(rng: random.Random, text: str, cell: int, height: float, *, plate: bool) -> Writing:
    font = rng.choice(tuple(FONTS))
    unit = height / REFERENCE_PX
    box = _place(rng, cell, *(length * unit for length in ink_size(text, font)))
    return Writing(text=text, font=font, cell=cell, cells=(cell,), glyph_height=unit, box=box, plate=plate)


def tiles_of(box: Box) -> int:
    """How many tiles of a 2 x 2 cut a box lies in: 1, 2 or 4."""
    return (1 + (box[0] < 0.5 < box[2])) * (1 + (box[1] < 0.5 < box[3]))


def tile_of(box: Box) -> int:
    """The tile of a 2 x 2 cut that holds the middle of a box, row by row."""
    return 2 * int(box[1] + box[3] > 1.0) + int(box[0] + box[2] > 1.0)
