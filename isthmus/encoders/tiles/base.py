"""What every tiling is: from the size of an image to the views that the encoder sees, before a pixel is read."""

from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from isthmus.encoders.pixels import Fit, Normalisation, fit_image
from isthmus.features import Grid

Whole = Literal["none", "first", "last"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How one image becomes views: resized, put on a black canvas of `grid` tiles, cut row by row.

    Sizes are (width, height) and places (left, top), in pixels. `whole` says where the whole image stands as a view of
    its own; `tiled` is false when that one view is all there is.
    """

    grid: Grid
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    whole: Whole = "none"
    tiled: bool = True
    finer: int = 1
    """Above 1, each of these views has `finer` x `finer` crops of its own, which come after all of them."""

    @property
    def num_views(self) -> int:
        """Views of the image: its tiles, the whole where that is one more, and the finer crops of each."""
        coarse = (self.grid.size if self.tiled else 0) + (self.whole != "none" or not self.tiled)
        return coarse * (1 + (self.finer**2 if self.finer > 1 else 0))

    def boxes(self, side: int) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of every tile on the canvas, row by row."""
        corners = [(column * side, row * side) for row in range(self.grid.rows) for column in range(self.grid.columns)]
        return [(left, top, left + side, top + side) for left, top in corners]


@dataclass(frozen=True, kw_only=True)
class TilingConfig:
    """Choices only; the views of an image follow from its size alone, so prompts are laid out without pixels."""

    def cut(self, size: tuple[int, int], side: int) -> Cut:
        """How an image of this size (width, height) is cut into views of `side` x `side` pixels."""
        raise AssertionError(f"{type(self).__name__} does not define cut")

    @property
    def most_views(self) -> int:
        """The largest number of views that an image can take."""
        raise AssertionError(f"{type(self).__name__} does not define most_views")

    def whole_view(
        self, image: Image.Image, canvas: Image.Image, cut: Cut, side: int, fit: Fit, normalisation: Normalisation
    ) -> Image.Image:
        """The whole image as one view: squashed, cropped or padded as the encoder fits any image."""
        return fit_image(image, side, fit, normalisation)


def make_views(
    image: Image.Image, tiling: TilingConfig, side: int, fit: Fit, normalisation: Normalisation
) -> tuple[list[Image.Image], Cut]:
    """The views of an RGB image in the order of its plan, each `side` x `side` pixels, and how it was cut."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    cut = tiling.cut(image.size, side)
    views = _views(image, tiling, cut, side, fit, normalisation)
    if cut.finer > 1:
        squares = Cut(grid=Grid(1, cut.finer, cut.finer), resized=(0, 0)).boxes(side)
        large = _views(image, tiling, cut, side * cut.finer, fit, normalisation, scale=cut.finer)
        views += [view.crop(box) for view in large for box in squares]
    return views, cut


def _views(
    image: Image.Image,
    tiling: TilingConfig,
    cut: Cut,
    side: int,
    fit: Fit,
    normalisation: Normalisation,
    *,
    scale: int = 1,
) -> list[Image.Image]:
    """Tiles and whole of one cut, whose sizes are multiplied by `scale`."""
    if not cut.tiled:
        return [tiling.whole_view(image, image, cut, side, fit, normalisation)]
    (wide, high), (left, top) = cut.resized, cut.offset
    scaled = replace(cut, resized=(wide * scale, high * scale), offset=(left * scale, top * scale))
    canvas = on_canvas(image, scaled, side, Image.Resampling(normalisation.resample))
    tiles = [canvas.crop(box) for box in cut.boxes(side)]
    if cut.whole == "none":
        return tiles
    whole = tiling.whole_view(image, canvas, cut, side, fit, normalisation)
    return [whole, *tiles] if cut.whole == "first" else [*tiles, whole]


def on_canvas(image: Image.Image, cut: Cut, side: int, resample: Image.Resampling) -> Image.Image:
    """The image resized and put in its place on a black canvas that the tiles cover exactly."""
    resized = image.resize(cut.resized, resample)
    size = (cut.grid.columns * side, cut.grid.rows * side)
    if size == resized.size:
        return resized
    canvas = Image.new("RGB", size, (0, 0, 0))
    canvas.paste(resized, cut.offset)
    return canvas
