"""Outlines of the eight shapes, in a unit square."""

from __future__ import annotations

import math

from PIL import ImageDraw

from isthmus.data.sources.world.scene import Box

Points = tuple[tuple[float, float], ...]


def _star() -> Points:
    raw = []
    for corner in range(10):
        radius = 1.0 if corner % 2 == 0 else 0.40
        angle = -math.pi / 2 + corner * math.pi / 5
        raw.append((radius * math.cos(angle), radius * math.sin(angle)))
    return _fill_square(raw)


def _heart() -> Points:
    raw = []
    for step in range(40):
        angle = 2 * math.pi * step / 40
        x = 16 * math.sin(angle) ** 3
        y = 13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle)
        raw.append((x, -y))
    return _fill_square(raw)


def _fill_square(raw: list[tuple[float, float]]) -> Points:
    left, right = min(x for x, _ in raw), max(x for x, _ in raw)
    top, bottom = min(y for _, y in raw), max(y for _, y in raw)
    return tuple(((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in raw)


_NARROW, _WIDE = 0.34, 0.66
OUTLINES: dict[str, Points] = {
    "square": ((0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)),
    "triangle": ((0.5, 0.02), (1.0, 0.96), (0.0, 0.96)),
    "star": _star(),
    "cross": (
        (_NARROW, 0), (_WIDE, 0), (_WIDE, _NARROW), (1, _NARROW), (1, _WIDE), (_WIDE, _WIDE),
        (_WIDE, 1), (_NARROW, 1), (_NARROW, _WIDE), (0, _WIDE), (0, _NARROW), (_NARROW, _NARROW),
    ),
    "heart": _heart(),
    "diamond": ((0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)),
}  # fmt: skip
RING_HOLE = 0.27
"""The ring's hole begins this far in from its box, as a fraction of the box."""


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, box: Box) -> None:
    """Fill one shape into `box` (pixels) of a single-channel mask."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    if shape in ("circle", "ring"):
        draw.ellipse((x0, y0, x1 - 1, y1 - 1), fill=255)
        if shape == "ring":
            dx, dy = RING_HOLE * width, RING_HOLE * height
            draw.ellipse((x0 + dx, y0 + dy, x1 - 1 - dx, y1 - 1 - dy), fill=0)
        return
    draw.polygon([(x0 + x * (width - 1), y0 + y * (height - 1)) for x, y in OUTLINES[shape]], fill=255)
