"""Dynamic tiling: the grid of tiles whose aspect ratio is nearest to the image's, and a thumbnail behind them.

Source: InternVL 1.5 (arXiv:2404.16821), section 3.2. Checked against: OpenGVLab/InternVL `dynamic_preprocess` (oracles
`internvl_tiles*`).
"""

from dataclasses import dataclass
from functools import lru_cache

from isthmus.encoders.tiles.base import Cut, TilingConfig
from isthmus.features import Grid


@dataclass(frozen=True, kw_only=True)
class DynamicTiles(TilingConfig):
    """Between `min_tiles` and `max_tiles` tiles; the image is resized to their grid without keeping its aspect."""

    min_tiles: int = 1
    max_tiles: int = 12
    """12 in training; up to 40 in tests of InternVL 1.5."""
    thumbnail: bool = True
    """Add the whole image as the last view when there is more than one tile."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"DynamicTiles needs 1 <= min_tiles <= max_tiles, but min_tiles={self.min_tiles} and "
                f"max_tiles={self.max_tiles} came."
            )

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """The nearest aspect ratio; of equals a larger grid only while it enlarges the area less than 2 x."""
        width, height = size
        best, nearest = (1, 1), float("inf")
        for columns, rows in grids(self.min_tiles, self.max_tiles):
            distance = abs(width / height - columns / rows)
            larger = distance == nearest and width * height > 0.5 * side * side * columns * rows
            if distance < nearest or larger:
                best, nearest = (columns, rows), distance
        columns, rows = best
        thumbnail = self.thumbnail and columns * rows > 1
        return Cut(
            grid=Grid(1, rows, columns), resized=(columns * side, rows * side), whole="last" if thumbnail else "none"
        )

    @property
    def most_views(self) -> int:
        """`max_tiles`, and the thumbnail."""
        return self.max_tiles + (self.thumbnail and self.max_tiles > 1)


@lru_cache(maxsize=64)
def grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Every (columns, rows) with so many tiles, fewest tiles first.

    Where two grids of one size are equally near, the later one may win, so the order within a size matters: the public
    code sorts a set, and so does this, to meet the same grids in the same order (CPython hashes pairs of integers the
    same way in every process).
    """
    found = {
        (columns, rows)
        for most in range(min_tiles, max_tiles + 1)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if min_tiles <= columns * rows <= max_tiles
    }
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))
