"""What a scene holds, before anything is placed inside its cell."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from isthmus.data.sources.world.fonts import ink_size
from isthmus.data.sources.world.scene import CELLS, COLOURS, HELD_OUT, SHAPES, SIZES, TRENDS, content_key
from isthmus.data.sources.world.style import REFERENCE_PX, WorldStyle
from isthmus.data.sources.world.words import NUMBERS, WORDS

Kind = tuple[str, str]
"""A colour and a shape."""

ALLOWED: tuple[Kind, ...] = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT)
COMPANIONS: dict[Kind, Kind] = {kind: ALLOWED[(place + 23) % len(ALLOWED)] for place, kind in enumerate(ALLOWED)}
"""The object that each object brings along when `WorldStyle.companions` is above zero."""
CELL_ROOM = 0.30
"""The widest ink that stands in one cell, as a fraction of the side."""
ROW_ROOM = 0.94


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedItem:
    cell: int
    size: str
    colour: str
    shape: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedWriting:
    cell: int
    cells: tuple[int, ...]
    text: str
    font: str
    glyph_height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedChart:
    kind: Literal["bar", "line"]
    labels: tuple[str, ...]
    values: tuple[int, ...]
    trend: str
    cells: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenePlan:
    """The content of one scene; its key decides the split."""

    items: tuple[PlannedItem, ...]
    writings: tuple[PlannedWriting, ...]
    chart: PlannedChart | None

    def key(self) -> str:
        """Equal to the finished scene's `key()`."""
        chart = self.chart
        return content_key(
            [(item.cell, item.size, item.colour, item.shape) for item in self.items],
            [(writing.cell, writing.text) for writing in self.writings],
            None if chart is None else (chart.kind, chart.labels, chart.values, chart.cells),
        )


def plan_scene(rng: random.Random, style: WorldStyle, *, needs_held_out: bool) -> ScenePlan:
    """Choose a scene's content; with `needs_held_out`, one item (at least) is of a held-out kind."""
    chart = None
    writings: list[PlannedWriting] = []
    free = list(range(len(CELLS)))
    if rng.random() < style.chart:
        chart = _plan_chart(rng, whole=not needs_held_out and rng.random() < 0.5)
        free = [cell for cell in free if cell not in chart.cells]
    elif rng.random() < style.writing:
        for _ in range(2 if rng.random() < 0.2 else 1):
            writing = _plan_writing(rng, style, free)
            if writing is not None:
                writings.append(writing)
                free = [cell for cell in free if cell not in writing.cells]
    least, most = style.items
    if needs_held_out:
        least, most = max(1, least), max(1, most)
    if chart is not None:
        least = 1 if needs_held_out else 0
    number = min(rng.randint(min(least, most), most), len(free))
    kinds = _choose_kinds(rng, style, number)
    if needs_held_out:
        kinds[rng.randrange(number)] = rng.choice(sorted(HELD_OUT))
    items = [
        PlannedItem(cell=cell, size=rng.choice(SIZES), colour=colour, shape=shape)
        for cell, (colour, shape) in zip(rng.sample(free, number), kinds, strict=True)
    ]
    return ScenePlan(
        items=tuple(sorted(items, key=lambda item: item.cell)),
        writings=tuple(sorted(writings, key=lambda writing: writing.cell)),
        chart=chart,
    )


def _choose_kinds(rng: random.Random, style: WorldStyle, number: int) -> list[Kind]:
    """`number` pairs of colour and shape, none held out; in some scenes several share a colour or a shape."""
    kinds = [rng.choice(ALLOWED) for _ in range(number)]
    if number > 1 and rng.random() < style.repeat:
        shared = rng.randrange(2)
        value = rng.choice((COLOURS, SHAPES)[shared])
        partners = [kind for kind in ALLOWED if kind[shared] == value]
        for place in rng.sample(range(number), rng.randint(2, number)):
            kinds[place] = rng.choice(partners)
    if style.companions > 0.0:
        for place in range(0, number - 1, 2):
            if rng.random() < style.companions:
                kinds[place + 1] = COMPANIONS[kinds[place]]
    return kinds


def _plan_writing(rng: random.Random, style: WorldStyle, free: list[int]) -> PlannedWriting | None:
    """A writing that fits into one free cell, or into a free row when it is wider; None when no place is left."""
    font = rng.choice(style.fonts)
    height = rng.choice(style.glyph_heights) / REFERENCE_PX
    texts = NUMBERS if rng.random() < style.numbers else WORDS
    text = rng.choice(texts if texts is WORDS else rng.choice((NUMBERS[:10], NUMBERS[10:100], NUMBERS[100:])))
    width = ink_size(text, font)[0] * height
    while width > ROW_ROOM:
        text = rng.choice(texts)
        width = ink_size(text, font)[0] * height
    if width <= CELL_ROOM:
        if not free:
            return None
        cell = rng.choice(free)
        return PlannedWriting(cell=cell, cells=(cell,), text=text, font=font, glyph_height=height)
    rows = [row for row in range(3) if all(3 * row + column in free for column in range(3))]
    if not rows:
        return None
    first = 3 * rng.choice(rows)
    return PlannedWriting(
        cell=first + 1, cells=(first, first + 1, first + 2), text=text, font=font, glyph_height=height
    )


def _plan_chart(rng: random.Random, *, whole: bool) -> PlannedChart:
    """A bar chart or a line chart over the whole picture, or over its two upper or lower rows."""
    cells = tuple(range(9)) if whole else rng.choice((tuple(range(6)), tuple(range(3, 9))))
    if rng.random() < 0.5:
        number = rng.randint(2, 5)
        return PlannedChart(
            kind="bar",
            labels=tuple(rng.sample(COLOURS, number)),
            values=tuple(rng.randint(1, 9) for _ in range(number)),
            trend="",
            cells=cells,
        )
    trend = rng.choice(TRENDS)
    values = sorted(rng.sample(range(1, 10), rng.randint(5, 7)))
    if trend in ("peak", "valley"):
        turn = values.pop() if trend == "peak" else values.pop(0)
        rng.shuffle(values)
        middle = rng.randint(2, len(values) - 2)
        up = trend == "peak"
        values = [*sorted(values[:middle], reverse=not up), turn, *sorted(values[middle:], reverse=up)]
    elif trend == "falling":
        values.reverse()
    return PlannedChart(kind="line", labels=(rng.choice(COLOURS),), values=tuple(values), trend=trend, cells=cells)
