"""Sub-image decomposition: a fixed grid of crops of the enlarged image, and the whole as an overview.

Source: MM1 (arXiv:2403.09611), section 4.1: 1344 px as four crops of 672 px and one overview; Idefics2
(arXiv:2405.02246), section 4.2, puts the whole last. By the paper: neither has public code for the whole of it.
"""

from dataclasses import dataclass

from isthmus.encoders.tiles.base import Cut, TilingConfig, Whole
from isthmus.features import Grid


@dataclass(frozen=True, kw_only=True)
class SubImages(TilingConfig):
    """The image resized to `columns` x `rows` views and cut, whatever its own aspect."""

    columns: int = 2
    rows: int = 2
    whole: Whole = "first"

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 1 or self.whole not in ("none", "first", "last"):
            raise ValueError(
                f"SubImages(columns={self.columns}, rows={self.rows}, whole={self.whole!r}): give 1 or more of each, "
                f"and 'none', 'first' or 'last' for the whole image."
            )

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """Always the same grid."""
        resized = (self.columns * side, self.rows * side)
        return Cut(grid=Grid(1, self.rows, self.columns), resized=resized, whole=self.whole)

    @property
    def most_views(self) -> int:
        """All crops, and the whole."""
        return self.columns * self.rows + (self.whole != "none")
