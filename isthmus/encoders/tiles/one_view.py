"""One view: the whole image, squashed, cropped or padded to a square.

Source: LLaVA-1.5 (arXiv:2310.03744), which pads; LLaVA-NeXT's base view and InternVL's thumbnail, which squash.
"""

from dataclasses import dataclass

from isthmus.encoders.tiles.base import Cut, TilingConfig
from isthmus.features import Grid


@dataclass(frozen=True, kw_only=True)
class OneView(TilingConfig):
    """The whole image as one square view."""

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """Nothing is cut."""
        return Cut(grid=Grid(1, 1, 1), resized=(side, side), tiled=False)

    @property
    def most_views(self) -> int:
        """One."""
        return 1
