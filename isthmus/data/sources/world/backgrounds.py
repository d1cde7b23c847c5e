"""Backgrounds: pale, grey or dark, plain or patterned, never near an item's colour."""

from __future__ import annotations

import random
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from isthmus.data.sources.world.scene import Background, Rgb

Kind = Literal["flat", "gradient", "noise", "stripes", "checker"]
Shares = npt.NDArray[np.float32]
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
    along: Shares = ((np.arange(size) + 0.5) / size).astype(np.float32)
    share: Shares
    if background.kind == "gradient":
        share = np.broadcast_to(along[:, None], (size, size))
    elif background.kind == "stripes":
        share = np.broadcast_to((np.floor(along * 2 * background.periods) % 2)[:, None], (size, size))
    elif background.kind == "checker":
        odd = np.floor(along * 2 * background.periods)
        share = (odd[:, None] + odd) % 2
    else:
        share = np.random.default_rng(background.seed).random((size, size), dtype=np.float32)
    if background.turned:
        share = share.T
    first, second = (np.asarray(rgb, dtype=np.float32) for rgb in (background.first, background.second))
    return Image.fromarray((first + share[..., None] * (second - first) + 0.5).astype(np.uint8))


def is_dark(background: Background) -> bool:
    """Whether light ink reads better than dark ink on it."""
    return sum(background.first) < 3 * 120
