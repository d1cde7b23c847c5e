"""The values of the exact world: what a picture holds, known exactly.

Boxes are (x0, y0, x1, y1) as fractions of the canvas side, with y downwards; cells number the 3 x 3 grid row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Box = tuple[float, float, float, float]
Rgb = tuple[int, int, int]
Split = Literal["train", "val", "test", "test_combos"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring")
SIZES = ("small", "large")
CELLS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
TRENDS = ("rising", "falling", "peak", "valley")
SPLITS: tuple[Split, ...] = ("train", "val", "test", "test_combos")

RGB: dict[str, Rgb] = {
    "red": (216, 36, 40),
    "orange": (246, 138, 24),
    "yellow": (246, 222, 40),
    "green": (44, 158, 66),
    "blue": (44, 92, 214),
    "purple": (128, 54, 172),
    "pink": (244, 132, 188),
    "brown": (134, 82, 42),
}
"""The middle shade of every colour; an item's own shade lies within a tenth of it."""

HELD_OUT = frozenset(
    {
        ("red", "triangle"),
        ("orange", "ring"),
        ("yellow", "heart"),
        ("green", "cross"),
        ("blue", "star"),
        ("purple", "diamond"),
        ("pink", "square"),
        ("brown", "circle"),
    }
)
"""Pairs of colour and shape seen only in `test_combos`: every colour and every shape loses exactly one partner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One coloured shape; `rgb` is its own shade of `colour`."""

    shape: str
    colour: str
    size: str
    cell: int
    box: Box
    rgb: Rgb


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """A word or a number in a real font; `glyph_height` is the height of its capitals and digits over the side.

    `box` bounds the ink. A writing too wide for one cell takes its whole row (`cells`), with its middle in `cell`.
    """

    text: str
    font: str
    cell: int
    cells: tuple[int, ...]
    glyph_height: float
    box: Box
    plate: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A bar chart (one coloured bar per label, values 1 to 9) or a line chart (one colour, one trend)."""

    kind: Literal["bar", "line"]
    labels: tuple[str, ...]
    values: tuple[int, ...]
    trend: str
    box: Box
    cells: tuple[int, ...]
    numbered: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Distractor:
    """A small grey dot or line that no question asks about."""

    kind: Literal["dot", "line"]
    box: Box
    grey: int
    falling: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Background:
    """What lies behind everything: two colours, how they alternate, and how often over the side."""

    kind: Literal["flat", "gradient", "noise", "stripes", "checker"]
    first: Rgb
    second: Rgb
    periods: int
    turned: bool
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One picture's full truth. `items` and `writings` stand in raster order."""

    seed: int
    split: Split
    background: Background
    items: tuple[Item, ...]
    writings: tuple[Writing, ...]
    chart: Chart | None
    distractors: tuple[Distractor, ...]

    def key(self) -> str:
        """The content alone, canonical: equal for two scenes that differ only in shades, jitter, font or background."""
        return content_key(
            [(item.cell, item.size, item.colour, item.shape) for item in self.items],
            [(writing.cell, writing.text) for writing in self.writings],
            None if self.chart is None else (self.chart.kind, self.chart.labels, self.chart.values, self.chart.cells),
        )


def content_key(
    items: list[tuple[int, str, str, str]],
    writings: list[tuple[int, str]],
    chart: tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]] | None,
) -> str:
    """The canonical text of a scene's content; the one place that decides what makes two scenes the same."""
    parts = [f"{cell}:{size} {colour} {shape}" for cell, size, colour, shape in sorted(items)]
    parts += [f'{cell}:"{text}"' for cell, text in sorted(writings)]
    if chart is not None:
        kind, labels, values, cells = chart
        parts.append(f"{kind}@{','.join(map(str, cells))}:{','.join(labels)}={','.join(map(str, values))}")
    return "; ".join(parts)
