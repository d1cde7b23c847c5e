"""Features as maps, channels last: what the convolutional connectors share.

A map is [maps, rows, columns, channels], one map a frame of a view. With channels last a 1 x 1 convolution is a linear
layer and a norm over channels needs no transposition; the depthwise convolution sees the same memory as channels-last.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.features import Features, Grid

Side = int | tuple[int, int]


def rows_columns(side: Side) -> tuple[int, int]:
    """Rows and columns of a target grid: one number is a square."""
    return (side, side) if isinstance(side, int) else side


def check_side(config: object, side: Side) -> None:
    """Raises ValueError when the target grid has no token."""
    if min(rows_columns(side)) < 1:
        raise ValueError(f"{type(config).__name__}(side={side}) leaves no token: give 1 or more rows and columns.")


def check_same_grid(connector: nn.Module, came: Grid, built: Grid) -> None:
    """Raises ValueError unless every frame has the rows and columns that a position table was built for."""
    if (came.rows, came.columns) != (built.rows, built.columns):
        raise ValueError(
            f"{type(connector).__name__} learns a position for every patch of the {built.rows} x {built.columns} grid "
            f"it was built for, but a {came.rows} x {came.columns} grid came. Build it for that grid (the image size "
            f"of the encoder), or with positions=False."
        )


def to_maps(patches: Float[Tensor, "views patches c"], grid: Grid) -> Float[Tensor, "maps rows columns c"]:
    """One map a frame of a view."""
    frames, rows, columns = grid
    maps: Tensor = rearrange(patches, "views (t h w) c -> (views t) h w c", t=frames, h=rows, w=columns)
    return maps


def to_tokens(maps: Float[Tensor, "maps rows columns c"], frames: int) -> Float[Tensor, "views tokens c"]:
    """Frame by frame, row by row."""
    tokens: Tensor = rearrange(maps, "(views t) h w c -> views (t h w) c", t=frames)
    return tokens


def frame_patches(features: Features) -> Float[Tensor, "maps patches c"]:
    """The patches of every frame alone."""
    patches: Tensor = rearrange(features.patches, "views (t n) c -> (views t) n c", t=features.grid.frames)
    return patches


def pool(maps: Float[Tensor, "maps h w c"], rows: int, columns: int) -> Float[Tensor, "maps {rows} {columns} c"]:
    """Adaptive average pooling. Bins overlap where sides do not divide; a larger target repeats positions."""
    height, width = maps.shape[1:3]
    if (height, width) == (rows, columns):
        return maps
    first = rearrange(maps, "maps h w c -> maps c h w")
    if height % rows == 0 and width % columns == 0:
        pooled = functional.avg_pool2d(first, (height // rows, width // columns))
    else:
        pooled = functional.adaptive_avg_pool2d(first, (rows, columns))
    last: Tensor = rearrange(pooled, "maps c h w -> maps h w c")
    return last


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution of channels-last maps, or of vectors: a linear layer."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = False) -> None:
        super().__init__(in_dim, out_dim, 1, bias=bias)

    def forward(self, input: Float[Tensor, "*places in"]) -> Float[Tensor, "*places out"]:
        """[..., in] -> [..., out]."""
        return functional.linear(input, rearrange(self.weight, "o i 1 1 -> o i"), self.bias)


class Depthwise(nn.Conv2d):
    """A 3 x 3 convolution of every channel alone, on channels-last maps, zeros around."""

    def __init__(self, width: int, *, stride: int = 1, bias: bool = False) -> None:
        super().__init__(width, width, 3, stride=stride, padding=1, groups=width, bias=bias)

    def forward(self, input: Float[Tensor, "maps h w c"]) -> Float[Tensor, "maps rows columns c"]:
        """[maps, h, w, c] -> [maps, ceil(h / stride), ceil(w / stride), c]."""
        seen = super().forward(rearrange(input, "maps h w c -> maps c h w"))
        last: Tensor = rearrange(seen, "maps c h w -> maps h w c")
        return last


class SqueezeExcite(nn.Module):
    """Every channel is scaled by a gate that the mean of all channels over the map decides."""

    def __init__(
        self, width: int, inner: int, *, activation: Callable[[Tensor], Tensor], gate: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.activation, self.gate = activation, gate
        self.narrow = Pointwise(width, inner, bias=True)
        self.widen = Pointwise(inner, width, bias=True)

    def forward(self, maps: Float[Tensor, "maps h w c"]) -> Float[Tensor, "maps h w c"]:
        """[maps, h, w, c], scaled."""
        scale = self.gate(self.widen(self.activation(self.narrow(maps.mean(dim=(1, 2))))))
        return maps * scale[:, None, None, :]


def squeeze_parameters(width: int, inner: int) -> int:
    """Weights and biases of `SqueezeExcite`."""
    return 2 * width * inner + inner + width


def append(tokens: Float[Tensor, "views m c"], ends: Float[Tensor, "1 e c"] | None) -> Float[Tensor, "views tokens c"]:
    """The same learned tokens after those of every view."""
    if ends is None:
        return tokens
    return torch.cat([tokens, ends.expand(tokens.shape[0], -1, -1)], dim=1)
