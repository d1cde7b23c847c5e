"""Backgrounds: pale, grey or dark, plain or patterned, never near an item's colour."""

from __future__ import annotations

import random
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from isthmus.data.sources.world.scene import Background, Rgb

Kind = Literal["flat", "gradient", "noise", "stripes", "checker"]
Shares = npt.NDArray[np.uint8]
_KINDS: tuple[Kind, ...] = get_args(Kind)


def _tone(rng: random.Random, light: int) -> Rgb:
    """A grey of this lightness with a faint tint."""
    red, green, blue = (max(0, min(255, light + rng.randint(-7, 7))) for _ in range(3))
    return red, green, blue


def draw_background(rng: random.Random) -> Background:
    """Choose a background: three in five pale, the others mid grey or dark."""
    light = rng.choice((248, 240, 228, 178, 60))
    step = rng.randint(8, 20) * (-1 if light > 128 else 1)
    return Background(
        kind=rng.choice(_KINDS),
        first=_tone(rng, light),
        second=_tone(rng, light + step),
        periods=rng.randint(3, 9),
        turned=rng.random() < 0.5,
        seed=rng.getrandbits(32),
    )


def paint_background(background: Background, size: int) -> Image.Image:
    """The background as an RGB picture of `size` x `size` pixels."""
    if background.kind == "flat":
        return Image.new("RGB", (size, size), background.first)
    share = _shares(background, size)
    mask = Image.fromarray(np.ascontiguousarray(share.T if background.turned else share))
    first, second = (Image.new("RGB", (size, size), rgb) for rgb in (background.first, background.second))
    return Image.composite(second, first, mask)


def _shares(background: Background, size: int) -> Shares:
    """The second colour's share in every pixel, of 255."""
    if background.kind == "noise":
        return np.random.default_rng(background.seed).integers(0, 256, (size, size), dtype=np.uint8)
    along = (np.arange(size) + 0.5) / size
    if background.kind == "gradient":
        return np.broadcast_to((along * 255).astype(np.uint8)[:, None], (size, size))
    odd = (along * 2 * background.periods).astype(np.uint8) % 2
    if background.kind == "stripes":
        return np.broadcast_to(odd[:, None] * np.uint8(255), (size, size))
    return (odd[:, None] ^ odd) * np.uint8(255)


def is_dark(background: Background) -> bool:
    """Whether light ink reads better than dark ink on it."""
    return sum(background.first) < 3 * 120
