"""Finer: every view of another tiling, and crops of it at a higher resolution, which are stacked on it and not read.

Source: DeepStack-L-HD (arXiv:2406.04334), section 3.3: each of LLaVA-NeXT's views refined by four crops. By the paper:
its released code covers the stacking (oracle `deepstack_forward_anyres`), not these crops. The arrangement that reads
them is DeepStack(every_view=True).
"""

from dataclasses import dataclass, field, replace

from PIL import Image

from isthmus.encoders.pixels import Fit, Normalisation
from isthmus.encoders.tiles.anyres import AnyresTiles
from isthmus.encoders.tiles.base import Cut, TilingConfig


@dataclass(frozen=True, kw_only=True)
class FinerTiles(TilingConfig):
    """The views of `tiles`, then `factor` x `factor` crops of the first view, of the second, and so on."""

    tiles: TilingConfig = field(default_factory=AnyresTiles)
    """Puts the whole image first, or gives one view."""
    factor: int = 2
    """How many times finer the crops are, in each direction."""

    def __post_init__(self) -> None:
        if self.factor < 2 or isinstance(self.tiles, FinerTiles):
            raise ValueError(
                f"FinerTiles(factor={self.factor}, tiles={type(self.tiles).__name__}): the crops are at least 2 times "
                f"finer than the views of a tiling that has no finer ones itself."
            )

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """As `tiles` cuts. Raises ValueError when that puts the whole image last."""
        cut = self.tiles.cut(size, side)
        if cut.whole == "last":
            raise ValueError(f"FinerTiles needs the whole image first, but {type(self.tiles).__name__} puts it last.")
        return replace(cut, finer=self.factor)

    @property
    def most_views(self) -> int:
        """Views of `tiles`, each with its crops."""
        return self.tiles.most_views * (1 + self.factor**2)

    def whole_view(
        self, image: Image.Image, canvas: Image.Image, cut: Cut, side: int, fit: Fit, normalisation: Normalisation
    ) -> Image.Image:
        """As `tiles` makes it."""
        return self.tiles.whole_view(image, canvas, cut, side, fit, normalisation)
