"""Two vision towers on the same views: what the second says of a patch comes beside what the first says of it.

Source: Eyes Wide Shut (arXiv:2401.06209), section 4, and Cambrian-1 (arXiv:2406.16860), section 3.3, which join CLIP's
or SigLIP's features with DINOv2's. No oracle of its own: the tests compare with both towers run alone.
"""

import dataclasses
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from isthmus.config import fingerprint
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared
from isthmus.encoders.tiles import OneView
from isthmus.encoders.vision import VisionEncoder, VisionTower
from isthmus.features import Clip, Features, FeatureShape, Plan, Sound


@dataclass(frozen=True, kw_only=True)
class PairedEncoder(EncoderConfig):
    """Tokens of the first tower, levels of the second: for connectors that read levels, such as `ChannelConcatConfig`.

    Both see the same views, each at its own resolution and with its own mean and deviation.
    """

    first: VisionEncoder = field(default_factory=VisionEncoder)
    """Its tokens come first; its `tiles`, `fit` and class token are those of the pair."""
    second: VisionEncoder = field(default_factory=VisionEncoder)
    """Leave its `tiles` and `class_token` alone."""

    def shape(self) -> FeatureShape:
        """The first tower's, with the second's layers as further levels.

        Raises:
            ValueError: grids, number formats or ways to see an image that differ, or tiles at two resolutions.
        """
        one, other = self.first.shape(), self.second.shape()
        if (one.grid.rows, one.grid.columns) != (other.grid.rows, other.grid.columns):
            raise ValueError(
                f"PairedEncoder joins two towers patch by patch, but {self.first.name!r} has {one.grid.rows} x "
                f"{one.grid.columns} patches at {self.first.image_size} px and {self.second.name!r} has "
                f"{other.grid.rows} x {other.grid.columns} at {self.second.image_size} px. Choose image sizes with "
                f"equally many patches a side, such as 336 px in patches of 14 and 384 px in patches of 16."
            )
        if other.prefix or not isinstance(self.second.tiles, OneView):
            raise ValueError(
                "PairedEncoder takes class token and tiles from its first tower: leave class_token=False and "
                "tiles=OneView() in the second."
            )
        for name in ("fit", "precision"):
            mine, theirs = getattr(self.first, name), getattr(self.second, name)
            if mine != theirs:
                raise ValueError(
                    f"PairedEncoder: first.{name}={mine!r} and second.{name}={theirs!r} have to be equal, so that both "
                    f"see the same image in one number format. Set second.{name}={mine!r}."
                )
        if not isinstance(self.first.tiles, OneView) and self.first.image_size != self.second.image_size:
            raise ValueError(
                f"Tiles are cut by the size of a view, and the towers see {self.first.image_size} and "
                f"{self.second.image_size} px. Use one image_size for both, or tiles=OneView()."
            )
        return dataclasses.replace(one, level_widths=(*one.level_widths, other.width, *other.level_widths))

    def build(self) -> "PairedTowers":
        """Both towers with their pretrained weights, in eval mode."""
        return PairedTowers(self)

    def fingerprint(self) -> str:
        """Both towers', in their order."""
        return fingerprint({"first": self.first.fingerprint(), "second": self.second.fingerprint()})

    def parameters(self) -> int:
        """Those of both."""
        return self.first.parameters() + self.second.parameters()

    def adapters(self) -> int:
        """Those of both."""
        return self.first.adapters() + self.second.adapters()

    def flops(self) -> int:
        """Those of both."""
        return self.first.flops() + self.second.flops()

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """The views that the first tower's `tiles` cut."""
        return self.first.plan(size, first_view)

    def view_side(self) -> int:
        """The first tower's."""
        return self.first.image_size

    def tiles_several(self) -> bool:
        """As the first tower says."""
        return self.first.tiles_several()

    def most_views(self) -> int:
        """As the first tower says."""
        return self.first.most_views()


class PairedTowers(Encoder):
    """[views, 1, 1, numbers] -> `Features`: a view's numbers are the pixels for the first tower, then the second's."""

    def __init__(self, config: PairedEncoder) -> None:
        super().__init__()
        self.shape = config.shape()
        self.config = config
        self.first: VisionTower = config.first.build()
        self.second: VisionTower = dataclasses.replace(config.second, tiles=config.first.tiles).build()

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """The views as each tower wants them, side by side. Raises ValueError for a sound."""
        one, other = self.first.prepare(image), self.second.prepare(image)
        assert len(one.pixels) == len(other.pixels), "both towers see the same views"
        flat = [rearrange(ready.pixels, "views c h w -> views 1 1 (c h w)") for ready in (one, other)]
        return dataclasses.replace(one, pixels=torch.cat(flat, dim=-1))

    def parts(self, pixels: Float[Tensor, "views 1 1 numbers"]) -> tuple[Tensor, Tensor]:
        """For each tower [views, 3, side, side]. Raises ValueError for other pixels than `prepare` makes."""
        sides = (self.config.first.image_size, self.config.second.image_size)
        counts = [3 * side**2 for side in sides]
        if pixels.shape[-1] != sum(counts):
            raise ValueError(
                f"PairedEncoder reads {counts[0]} + {counts[1]} numbers a view, but {pixels.shape[-1]} came. Use "
                f"prepare(image)."
            )
        one, other = torch.split(pixels, counts, dim=-1)
        lying = "views 1 1 (c h w) -> views c h w"
        return rearrange(one, lying, c=3, h=sides[0]), rearrange(other, lying, c=3, h=sides[1])

    def forward(self, pixels: Float[Tensor, "views 1 1 numbers"]) -> Features:
        """Each tower on its own part. Raises ValueError for other pixels than `prepare` makes."""
        given = self.parts(pixels)
        one: Features = self.first(given[0])
        other: Features = self.second(given[1])
        return dataclasses.replace(one, levels=(*one.levels, other.tokens, *other.levels))
