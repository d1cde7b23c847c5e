"""TokenPacker-HD's tiles: the grid that shows most of the image and is not much larger than it, filled from the corner.

Source: TokenPacker (arXiv:2407.02392). Checked against: CircleRadon/TokenPacker `llava/patch_divide.py` (oracle
`tokenpacker_hd_tiles`).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from isthmus.encoders.pixels import Fit, Normalisation
from isthmus.encoders.tiles.base import Cut, TilingConfig
from isthmus.features import Grid

_UP_TO_9 = "1,1 1,2 2,1 1,3 3,1 2,2 1,4 4,1 1,5 5,1 1,6 6,1 2,3 3,2 1,7 7,1 4,2 2,4 1,8 8,1 3,3 1,9 9,1"
_UP_TO_16 = "2,5 5,2 2,6 6,2 3,4 4,3 2,7 7,2 3,5 5,3 2,8 8,2 4,4"
_UP_TO_25 = "3,6 6,3 2,9 9,2 4,5 5,4 2,10 10,2 3,7 7,3 11,2 2,11 4,6 6,4 12,2 2,12 3,8 8,3 4,6 6,4 5,5"
_LISTS, _SIZES = (_UP_TO_9, _UP_TO_16, _UP_TO_25), (9, 16, 25)
_LARGER_BOX = 1.4
_NEARNESS_WEIGHT = 0.1


def grids(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """The (rows, columns) to choose from, in the public order, for up to 9, 16 or 25 tiles."""
    listed = " ".join(_LISTS[: _SIZES.index(max_tiles) + 1])
    pairs = (one.split(",") for one in listed.split())
    return tuple((int(rows), int(columns)) for rows, columns in pairs)


@dataclass(frozen=True, kw_only=True)
class TokenPackerTiles(TilingConfig):
    """Up to `max_tiles` tiles; the image keeps its aspect in the top left corner; the padded canvas comes last."""

    max_tiles: int = 9
    """9, 16 or 25: the grids are listed for these."""

    def __post_init__(self) -> None:
        if self.max_tiles not in _SIZES:
            raise ValueError(f"TokenPackerTiles(max_tiles={self.max_tiles}): its grids are listed for 9, 16 and 25.")

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """The grid of the highest score: the share of it that shows the image, and a tenth of how near it is in size.

        The score is computed in float32, and the first of equal grids wins, as in the public code.
        """
        width, height = size
        choices = grids(self.max_tiles)
        room = np.array(choices, dtype=np.float32) * side
        high, wide = room[:, 0], room[:, 1]
        ratio = np.minimum(high / np.float32(height), wide / np.float32(width))
        shown = np.round(ratio * np.float32(height)) * np.round(ratio * np.float32(width)) / (high * wide)
        tall, broad = np.float32(height * _LARGER_BOX), np.float32(width * _LARGER_BOX)
        both = np.minimum(high, tall) * np.minimum(wide, broad)
        nearness = both / (high * wide + tall * broad - both)
        rows, columns = choices[int(np.argmax(shown + np.float32(_NEARNESS_WEIGHT) * nearness))]
        scale = min(rows * side / height, columns * side / width)
        resized = (max(1, round(width * scale)), max(1, round(height * scale)))
        return Cut(grid=Grid(1, rows, columns), resized=resized, whole="last" if rows * columns > 1 else "none")

    @property
    def most_views(self) -> int:
        """`max_tiles`, and the thumbnail."""
        return self.max_tiles + 1

    def whole_view(
        self, image: Image.Image, canvas: Image.Image, cut: Cut, side: int, fit: Fit, normalisation: Normalisation
    ) -> Image.Image:
        """The padded canvas, resized to the image's own aspect inside one tile, in the top left corner on black."""
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        thumbnail = Image.new("RGB", (side, side), (0, 0, 0))
        thumbnail.paste(canvas.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
        return thumbnail
