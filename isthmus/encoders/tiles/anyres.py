"""Any resolution: the grid of tiles that keeps most of the image's detail and wastes least, padded; the whole first.

Source: LLaVA-1.5-HD (arXiv:2310.03744), section 3.4; LLaVA-NeXT and LLaVA-OneVision (arXiv:2408.03326), section 3.2.
Checked against: haotian-liu/LLaVA `llava/mm_utils.py` (oracles `llava_anyres*`, `llava_onevision_tables`). LLaVA-1.5-HD
has no public code: it is this with its own grids and `fit="pad"` for the whole.
"""

import math
from dataclasses import dataclass

from isthmus.encoders.tiles.base import Cut, TilingConfig
from isthmus.features import Grid

LLAVA_NEXT_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""LLaVA-NeXT at 336 px: (columns, rows) of 336 x 672, 672 x 336, 672 x 672, 1008 x 336 and 336 x 1008."""
ONEVISION_GRIDS = tuple((columns, rows) for columns in range(1, 7) for rows in range(1, 7))
"""LLaVA-OneVision at 384 px: every grid up to 6 x 6."""
LLAVA15_HD_GRIDS = (
    *((1, rows) for rows in range(1, 7)),
    *((columns, 1) for columns in range(2, 7)),
    (2, 2),
    (2, 3),
    (3, 2),
)
"""LLaVA-1.5-HD at 224 px: up to six tiles."""

DEEPSTACK_GRIDS = ((1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
"""DeepStack-L (arXiv:2406.04334): every grid of two to four crops, with `pad=False`."""


@dataclass(frozen=True, kw_only=True)
class AnyresTiles(TilingConfig):
    """The best of `grids`; the image keeps its aspect and is centred on black, or is stretched over all tiles."""

    grids: tuple[tuple[int, int], ...] = LLAVA_NEXT_GRIDS
    """(columns, rows) to choose from; of equally good ones the first wins."""
    whole: bool = True
    """Put the whole image before the tiles."""
    pad: bool = True
    """Keep the aspect and pad; without, resize to the grid as it is (DeepStack), and let nothing be unpadded."""

    def __post_init__(self) -> None:
        if not self.grids or any(len(grid) != 2 or min(grid) < 1 for grid in self.grids):
            raise ValueError(
                f"AnyresTiles(grids={self.grids}) must list (columns, rows) of 1 or more, such as ((1, 2), (2, 1))."
            )

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """The best grid, the resized image inside it, and where that begins."""
        wide, high = best_resolution(size, [(columns * side, rows * side) for columns, rows in self.grids])
        resized = fit_inside(size, (wide, high)) if self.pad else (wide, high)
        return Cut(
            grid=Grid(1, high // side, wide // side),
            resized=resized,
            offset=((wide - resized[0]) // 2, (high - resized[1]) // 2),
            whole="first" if self.whole else "none",
        )

    @property
    def most_views(self) -> int:
        """Tiles of the largest grid, and the whole."""
        return max(columns * rows for columns, rows in self.grids) + self.whole


def best_resolution(size: tuple[int, int], choices: list[tuple[int, int]]) -> tuple[int, int]:
    """The (width, height) that keeps most pixels of an image of this size; among those, the one that wastes least."""
    width, height = size
    best, kept, wasted = choices[0], -1, 0
    for wide, high in choices:
        scale = min(wide / width, high / height)
        keeps = min(int(width * scale) * int(height * scale), width * height)
        wastes = wide * high - keeps
        if keeps > kept or (keeps == kept and wastes < wasted):
            best, kept, wasted = (wide, high), keeps, wastes
    return best


def fit_inside(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """The size of an image scaled to fill this room in one direction, rounded up in the other."""
    (width, height), (wide, high) = size, room
    if wide / width < high / height:
        return wide, min(math.ceil(height * (wide / width)), high)
    return min(math.ceil(width * (high / height)), wide), high
