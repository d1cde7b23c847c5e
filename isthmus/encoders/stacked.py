"""DeepStack-V: the tokens of finer crops are added to those of the whole image inside the encoder, a group a block.

Source: DeepStack (arXiv:2406.04334), section 3.2: whole and crops pass the first blocks alone, then the crops' merged
map is sampled to dilated groups, each added before one more block of the whole image's own pass. The paper's best is 20
of 24 blocks before the first group. No oracle of its own: the tests compare with a pass written out block by block.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isthmus.config import fingerprint
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, untiled_plan
from isthmus.encoders.pixels import fit_image, to_pixels
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.towers import read_config
from isthmus.encoders.vision import VisionEncoder, VisionTower
from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound
from isthmus.weights import resolve_model


def _tiled_tower() -> VisionEncoder:
    return VisionEncoder(tiles=AnyresTiles(grids=((2, 2), (3, 1), (1, 3), (2, 1), (1, 2)), pad=False))


@dataclass(frozen=True, kw_only=True)
class StackedVisionEncoder(EncoderConfig):
    """One view an image, with as many tokens as without the crops. For `train=("encoder", ...)`: the paper tunes it."""

    tower: VisionEncoder = field(default_factory=_tiled_tower)
    """What sees whole and crops; its `tiles` say which crops there are, and keep the whole image."""
    groups: int = 4
    """How many groups are added, and the most crops of an image; fewer crops add to fewer blocks."""
    start_block: int = 2
    """The block (from 0) before which the first group is added; the crops pass those before it."""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.start_block < 0:
            raise ValueError(
                f"StackedVisionEncoder(groups={self.groups}, start_block={self.start_block}): there is at least 1 "
                f"group, and blocks count from 0."
            )

    def shape(self) -> FeatureShape:
        """The tower's. Raises ValueError when groups, tiles and chosen layers do not fit one another."""
        config = self.tower.trimmed()
        last = self.start_block + self.groups
        early = [depth for depth in self.tower.depths(read_config(resolve_model(self.tower.name))) if depth < last]
        if early:
            raise ValueError(
                f"{self.groups} groups are added before blocks {self.start_block} to {last - 1}, so layers are chosen "
                f"from {last} on, but layer {early[0]} came of {config.num_hidden_layers} blocks that are run. Begin "
                f"earlier (start_block), add fewer groups, or choose a later layer."
            )
        if self.tower.tiles.most_views == 1:
            raise ValueError(
                f"StackedVisionEncoder adds tokens of finer crops, but {type(self.tower.tiles).__name__} cuts none. "
                f"Use AnyresTiles(grids=((2, 2),), pad=False), or the tower alone."
            )
        if self.tower.tiles.most_views > 1 + self.groups:
            raise ValueError(
                f"{type(self.tower.tiles).__name__} cuts an image into up to {self.tower.tiles.most_views - 1} crops, "
                f"more than groups={self.groups}. Leave out the larger grids, or raise groups."
            )
        return self.tower.shape()

    def build(self) -> "StackedVisionTower":
        """The tower with its pretrained weights, in eval mode."""
        self.shape()
        tower = dataclasses.replace(self.tower, views_at_once=1 + self.groups**2, checkpointing=False)
        return StackedVisionTower(self, tower.build())

    def fingerprint(self) -> str:
        """The tower's, with where the groups are added."""
        return fingerprint({"tower": self.tower.fingerprint(), "groups": self.groups, "start": self.start_block})

    def parameters(self) -> int:
        """Those of the tower: the groups add none."""
        return self.tower.parameters()

    def adapters(self) -> int:
        """Those of the tower."""
        return self.tower.adapters()

    def flops(self) -> int:
        """The whole through all blocks, and `groups` crops through those before `start_block`."""
        config, shape, whole = self.tower.trimmed(), self.tower.shape(), self.tower.flops()
        patch = self.tower.image_size // shape.grid.rows
        embedding = 2 * shape.grid.size * int(getattr(config, "num_channels", 3)) * patch**2 * int(config.hidden_size)
        shallow = embedding + (whole - embedding) * self.start_block // int(config.num_hidden_layers)
        return whole + self.groups * shallow

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """One view."""
        return untiled_plan(size, 1, first_view)

    def plan_loaded(self, loaded: Image.Image | Clip | Sound, first_view: int = 0) -> Plan:
        """One view of an image; of a clip, one for each frame."""
        assert not isinstance(loaded, Sound), "sounds are planned by AudioEncoder"
        if isinstance(loaded, Clip):
            return untiled_plan(loaded.frames[0].size, len(loaded.frames), first_view)
        return self.plan(loaded.size, first_view)

    def view_side(self) -> int:
        """The tower's."""
        return self.tower.image_size

    def tiles_several(self) -> bool:
        """As the tower says."""
        return self.tower.tile_several


class StackedVisionTower(Encoder):
    """[views, 1 + groups * groups, 3, side, side] -> `Features` of [views, prefix + patches, width].

    Of each view the first picture is the whole image; the others are the cells of a square canvas, row by row, of which
    the image's crops fill the top left corner; the rest is NaN.
    """

    def __init__(self, config: StackedVisionEncoder, tower: VisionTower) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape()
        self.tower = tower
        self._cells = Grid(1, 0, 0)
        self._waiting: list[Tensor] = []
        blocks = find_blocks(tower.tower, int(config.tower.trimmed().num_hidden_layers))
        for number in range(config.groups):
            hook = partial(self._before, number)
            blocks[config.start_block + number].register_forward_pre_hook(hook, with_kwargs=True)

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """One view: the whole image and its crops on the canvas; the frames of a clip are views without crops.

        Raises:
            ValueError: a sound, or crops without the whole image.
        """
        side = self.config.groups
        if isinstance(image, Clip):
            sight, normalisation = self.config.tower, self.tower.normalisation
            fitted = [fit_image(one, sight.image_size, sight.fit, normalisation) for one in image.frames]
            wholes = torch.stack([to_pixels(one, normalisation) for one in fitted])
            empty = torch.full((len(wholes), side * side, *wholes.shape[1:]), float("nan"))
            return Prepared(
                pixels=torch.cat([wholes[:, None], empty], dim=1),
                size=image.frames[0].size,
                tiles=Grid(len(wholes), 1, 1),
            )
        ready = self.tower.prepare(image)
        crops, tiles = ready.pixels, ready.tiles
        if len(crops) == 1:
            whole, crops, tiles = crops[0], crops[:0], Grid(1, 0, 0)
        elif ready.whole == "none" or len(crops) != 1 + tiles.size:
            raise ValueError(
                f"{len(crops)} views of {tiles.rows} x {tiles.columns} tiles came with whole={ready.whole!r}: the "
                f"crops refine the whole image, so choose a tiling that keeps it and cuts each tile once."
            )
        else:
            whole = crops[0] if ready.whole == "first" else crops[-1]
            crops = crops[1:] if ready.whole == "first" else crops[:-1]
        canvas = torch.full((side, side, *whole.shape), float("nan"))
        canvas[: tiles.rows, : tiles.columns] = crops.view(tiles.rows, tiles.columns, *whole.shape)
        pixels = torch.cat([whole[None], canvas.flatten(0, 1)])[None]
        return Prepared(pixels=pixels, size=ready.size, tiles=Grid(1, 1, 1))

    def blank(self) -> Float[Tensor, "views pictures channels height width"]:
        """A black image and its crops."""
        pixels = self.prepare(Image.new("RGB", (32, 32))).pixels
        return torch.where(pixels.isnan(), pixels, 0.0)

    def forward(self, pixels: Float[Tensor, "views pictures channels height width"]) -> Features:
        """Whole and crops through the first blocks, then the whole with the groups added, block by block."""
        real = ~pixels[:, :, 0, 0, 0].isnan()
        # One image at a time: the number of crops differs, and memory stays bounded.
        parts = [self._seen(pixels[view : view + 1], real[view : view + 1]) for view in range(len(pixels))]
        return Features(
            tokens=torch.cat([part.tokens for part in parts]),
            grid=self.shape.grid,
            prefix=self.shape.prefix,
            levels=tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True)),
        )

    def _seen(self, pixels: Tensor, real: Tensor) -> Features:
        side = self.config.groups
        canvas = rearrange(real[0, 1:], "(rows columns) -> rows columns", rows=side)
        cells = Grid(1, int(canvas[:, 0].sum()), int(canvas[0].sum()))
        pictures, learns = pixels[0][real[0]], any(weight.requires_grad for weight in self.parameters())
        if self.config.tower.checkpointing and torch.is_grad_enabled() and learns:
            again: Features = checkpoint(self._stacked, pictures, cells, use_reentrant=False)
            return again
        return self._stacked(pictures, cells)

    def _stacked(self, pictures: Tensor, cells: Grid) -> Features:
        """One image's own pass. Computed again it has its own cells again, whatever images came after it."""
        self._cells = cells
        made: Features = self.tower(pictures)
        self._waiting = []
        return made

    def _before(self, number: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the first block the crops leave the batch and wait as groups; each block then takes one."""
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        if number == 0:
            self._waiting = list(self._grouped(hidden[1:], self._cells))
            hidden = hidden[:1]
        if number < len(self._waiting):
            own = hidden.shape[1] - self.shape.grid.size
            hidden = torch.cat([hidden[:, :own], hidden[:, own:] + self._waiting[number]], dim=1)
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": hidden}
        return (hidden, *args[1:]), kwargs

    def _grouped(self, crops: Tensor, cells: Grid) -> Float[Tensor, "groups patches width"]:
        """Every phase of the crops' merged map, row by row."""
        patches = crops[:, crops.shape[1] - self.shape.grid.size :]
        if not len(patches):
            return patches
        merged = rearrange(
            patches,
            "(rows columns) (h w) c -> (rows h) (columns w) c",
            rows=cells.rows,
            h=self.shape.grid.rows,
        )
        phases: Tensor = rearrange(
            merged, "(h rows) (w columns) c -> (rows columns) (h w) c", rows=cells.rows, columns=cells.columns
        )
        return phases


def find_blocks(tower: nn.Module, num_blocks: int) -> nn.ModuleList:
    """The tower's blocks: its one list of so many. Raises ValueError when it has none."""
    for module in tower.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_blocks:
            return module
    raise ValueError(f"{type(tower).__name__} has no list of {num_blocks} blocks, so no group can be added inside.")
