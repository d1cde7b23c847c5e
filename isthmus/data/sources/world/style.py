"""The choices of a distribution of scenes."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.data.sources.world.fonts import FONTS

REFERENCE_PX = 96
"""Side of the canvas, in pixels, in which glyph heights are stated."""


@dataclass(frozen=True, kw_only=True)
class WorldStyle:
    """Which scenes are drawn, and how often.

    Raises:
        ValueError: a probability outside 0 to 1, item counts outside 0 to 9, or glyph heights that do not fit.
    """

    items: tuple[int, int] = (1, 6)
    """Least and most items, drawn uniformly (fewer where writings or a chart take the room)."""
    repeat: float = 0.5
    """Probability that several items of the scene share a colour or a shape, which gives counts above one."""
    companions: float = 0.0
    """Probability that an item brings its companion (`COMPANIONS[colour, shape]`), which makes objects co-occur."""
    writing: float = 0.15
    """Probability of a writing; a fifth of these scenes have two."""
    numbers: float = 0.4
    """Probability that a writing is a number and not a word."""
    glyph_heights: tuple[float, ...] = (8.0, 10.0, 12.0, 14.0, 17.0)
    """Heights of capitals and digits, in pixels of a 96 px picture."""
    fonts: tuple[str, ...] = tuple(FONTS)
    chart: float = 0.1
    """Probability of a chart; half of them take the whole picture, half leave a row for items."""
    distractors: tuple[int, int] = (0, 5)
    """Least and most small grey dots and lines."""

    def __post_init__(self) -> None:
        for name in ("repeat", "companions", "writing", "numbers", "chart"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"WorldStyle.{name} is a probability from 0 to 1, got {getattr(self, name)}.")
        for name, most in (("items", 9), ("distractors", 50)):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= most:
                raise ValueError(f"WorldStyle.{name} is (least, most), both 0 to {most} and in order, got {low, high}.")
        if not self.glyph_heights or not all(3.0 <= height <= 20.0 for height in self.glyph_heights):
            raise ValueError(
                f"WorldStyle.glyph_heights are 3 to 20 pixels at a side of {REFERENCE_PX}, got {self.glyph_heights}."
            )
        if not self.fonts or any(font not in FONTS for font in self.fonts):
            raise ValueError(f"WorldStyle.fonts are some of {tuple(FONTS)}, got {self.fonts}.")
