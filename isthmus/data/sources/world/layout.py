"""Place planned content on the canvas: jitter inside cells, shades, plates, distractors."""

from __future__ import annotations

import random

from isthmus.data.sources.world.backgrounds import draw_background
from isthmus.data.sources.world.fonts import ink_size
from isthmus.data.sources.world.plan import PlannedChart, PlannedItem, PlannedWriting, ScenePlan
from isthmus.data.sources.world.scene import (
    RGB,
    Background,
    Box,
    Chart,
    Distractor,
    Item,
    Rgb,
    Scene,
    Split,
    Writing,
)
from isthmus.data.sources.world.style import WorldStyle

SIDES = {"small": (0.200, 0.220), "large": (0.300, 0.318)}
"""Side of an item's box over the canvas side."""
_MARGIN = 0.01
"""Least distance between a writing's ink and the edge of its cell."""
_BUSY = ("noise", "stripes", "checker")


def lay_out(plan: ScenePlan, rng: random.Random, style: WorldStyle, *, seed: int, split: Split) -> Scene:
    """The finished scene of a plan."""
    background = draw_background(rng)
    taken = {cell for writing in plan.writings for cell in writing.cells}
    if plan.chart is not None:
        taken.update(plan.chart.cells)
    open_cells = [cell for cell in range(9) if cell not in taken]
    return Scene(
        seed=seed,
        split=split,
        background=background,
        items=tuple(place_item(item, rng) for item in plan.items),
        writings=tuple(_place_writing(writing, rng, background) for writing in plan.writings),
        chart=None if plan.chart is None else _place_chart(plan.chart, rng),
        distractors=tuple(_distractor(rng, open_cells, background) for _ in range(rng.randint(*style.distractors)))
        if open_cells
        else (),
    )


def _inside(cell: int, width: float, height: float, rng: random.Random) -> Box:
    """A box of this size somewhere inside a cell."""
    row, column = divmod(cell, 3)
    x0 = column / 3 + rng.random() * (1 / 3 - width)
    y0 = row / 3 + rng.random() * (1 / 3 - height)
    return (x0, y0, x0 + width, y0 + height)


def place_item(item: PlannedItem, rng: random.Random) -> Item:
    """An item somewhere inside its cell, in its own shade."""
    side = rng.uniform(*SIDES[item.size])
    box = _inside(item.cell, side, side, rng)
    return Item(
        shape=item.shape, colour=item.colour, size=item.size, cell=item.cell, box=box, rgb=_shade(item.colour, rng)
    )


def _shade(colour: str, rng: random.Random) -> Rgb:
    factor = rng.uniform(0.9, 1.1)
    red, green, blue = (min(255, round(channel * factor)) for channel in RGB[colour])
    return red, green, blue


def _place_writing(writing: PlannedWriting, rng: random.Random, background: Background) -> Writing:
    width, height = (length * writing.glyph_height for length in ink_size(writing.text, writing.font))
    if len(writing.cells) == 1:
        x0, y0, x1, y1 = _inside(writing.cell, width + 2 * _MARGIN, height + 2 * _MARGIN, rng)
        box = (x0 + _MARGIN, y0 + _MARGIN, x1 - _MARGIN, y1 - _MARGIN)
    else:
        slack = min(1 - width, 1 / 3) / 2
        x0 = (1 - width) / 2 + rng.uniform(-slack, slack)
        _, y0, _, y1 = _inside(writing.cell, width, height, rng)
        box = (x0, y0, x0 + width, y1)
    return Writing(
        text=writing.text,
        font=writing.font,
        cell=writing.cell,
        cells=writing.cells,
        glyph_height=writing.glyph_height,
        box=box,
        plate=background.kind in _BUSY or rng.random() < 0.3,
    )


def _place_chart(chart: PlannedChart, rng: random.Random) -> Chart:
    top, bottom = (chart.cells[0] // 3) / 3, (chart.cells[-1] // 3 + 1) / 3
    left, right, up, down = (rng.uniform(0.005, 0.03) for _ in range(4))
    return Chart(
        kind=chart.kind,
        labels=chart.labels,
        values=chart.values,
        trend=chart.trend,
        box=(left, top + up, 1 - right, bottom - down),
        cells=chart.cells,
        numbered=chart.kind == "bar" and rng.random() < 0.5,
    )


def _distractor(rng: random.Random, cells: list[int], background: Background) -> Distractor:
    light = sum(background.first) // 3
    grey = max(0, min(255, light + rng.choice((-1, 1) if 70 < light < 200 else (-1,) if light >= 200 else (1,)) * 55))
    if rng.random() < 0.5:
        side = rng.uniform(0.015, 0.03)
        return Distractor(kind="dot", box=_inside(rng.choice(cells), side, side, rng), grey=grey, falling=True)
    box = _inside(rng.choice(cells), rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.12), rng)
    return Distractor(kind="line", box=box, grey=grey, falling=rng.random() < 0.5)
