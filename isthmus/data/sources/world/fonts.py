"""The bundled fonts: sizes by the height of a capital, and the ink box of a text in units of that height."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

FOLDER = Path(__file__).parents[3] / "bundled" / "fonts"
FONTS: dict[str, str] = {
    "sans": "DejaVuSans.ttf",
    "sans bold": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif italic": "DejaVuSerif-Italic.ttf",
    "mono": "DejaVuSansMono.ttf",
}
_MEASURED_AT = 256.0


@lru_cache(maxsize=512)
def _load(name: str, em_px: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FOLDER / FONTS[name], em_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=16)
def _capital(name: str) -> float:
    """Height of a capital over the em."""
    _, top, _, bottom = _load(name, _MEASURED_AT).getbbox("H", anchor="ls")
    return float(bottom - top) / _MEASURED_AT


def load_font(name: str, glyph_px: float) -> ImageFont.FreeTypeFont:
    """The font whose capitals are `glyph_px` high (to a quarter of a pixel of em)."""
    return _load(name, max(1.0, round(4 * glyph_px / _capital(name)) / 4))


@lru_cache(maxsize=8192)
def ink_size(text: str, name: str) -> tuple[float, float]:
    """Width and height of the text's ink, in heights of a capital."""
    left, top, right, bottom = _load(name, _MEASURED_AT).getbbox(text, anchor="ls")
    unit = _capital(name) * _MEASURED_AT
    return (right - left) / unit, (bottom - top) / unit
