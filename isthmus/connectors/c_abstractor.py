"""C-Abstractor: convolutional blocks mix neighbouring patches, pooling sets the number of tokens, more blocks follow.

Source: Honeybee (arXiv:2312.06742), section 3.2.
Checked against: khanrc/honeybee `projectors.py`, `CAbstractor`, with the RegNet blocks of timm (oracles
`honeybee_cabstractor*`).
Differs: patch and token grids need not be square, each frame of a clip is abstracted by itself, and maps have their
channels last, where a 1 x 1 convolution is a linear layer.
"""

from collections import OrderedDict
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_depth, check_features, check_patches_only
from isthmus.connectors.honeybee_mlp import (
    HONEYBEE_ENDS,
    NORM_EPS,
    check_eos,
    initialise,
    make_readout,
    make_table,
)
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import (
    Depthwise,
    Pointwise,
    Side,
    SqueezeExcite,
    append,
    check_same_grid,
    check_side,
    pool,
    rows_columns,
    squeeze_parameters,
    to_maps,
    to_tokens,
)
from isthmus.connectors.mlp import mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

_BLOCK = {
    "first": "conv1.conv",
    "first_norm": "conv1.bn",
    "depthwise": "conv2.conv",
    "depthwise_norm": "conv2.bn",
    "excite.narrow": "se.fc1",
    "excite.widen": "se.fc2",
    "last": "conv3.conv",
    "last_norm": "conv3.bn",
    "shortcut": "downsample.conv",
    "shortcut_norm": "downsample.bn",
}
C_ABSTRACTOR_KEYS = KeyMap(
    "abstractor.",
    (
        *(Entry(f"net.0.b*.{theirs}", (f"before.b*.{ours}",)) for ours, theirs in _BLOCK.items()),
        *(Entry(f"net.2.b*.{theirs}", (f"after.b*.{ours}",)) for ours, theirs in _BLOCK.items()),
        Entry("readout.*", ("project.*",)),
        *HONEYBEE_ENDS,
    ),
)
"""The names of khanrc/honeybee; see also `without_class_position`."""


@dataclass(frozen=True, kw_only=True)
class CAbstractorConfig(ConnectorConfig):
    """`side` rows and columns of visual tokens a frame, which may be more than there are patches."""

    side: Side = 12
    """Rows and columns after pooling: one number for a square, or (rows, columns)."""
    width: int = 1_024
    """Channels of the blocks; without blocks (depth=0) those of the encoder remain."""
    depth: int = 3
    """Blocks before pooling, and as many after it; 0 leaves pooling and the MLP."""
    mlp_depth: int = 2
    """Linear layers at the end, with SiLU between them."""
    positions: bool = True
    """A learned vector added to every patch by its place; ties the weights to the patch grid."""
    prenorm: bool = False
    """A LayerNorm on the features."""
    eos_tokens: int = 0
    """Learned tokens after those of every view."""

    def __post_init__(self) -> None:
        check_side(self, self.side)
        check_depth(self, self.mlp_depth)
        check_eos(self, self.eos_tokens)
        if self.depth < 0 or self.width < 4:
            raise ValueError(
                f"CAbstractorConfig(depth={self.depth}, width={self.width}): depth must be 0 or more, width 4 or more."
            )

    def num_tokens(self, grid: Grid) -> int:
        """frames * rows * columns after pooling, and the learned ones."""
        rows, columns = rows_columns(self.side)
        return grid.frames * rows * columns + self.eos_tokens

    def token_grid(self, grid: Grid) -> Grid:
        """Rows and columns after pooling; one row when learned tokens follow."""
        if self.eos_tokens:
            return Grid(1, 1, self.num_tokens(grid))
        rows, columns = rows_columns(self.side)
        return Grid(grid.frames, rows, columns)

    def widths(self, source: FeatureShape) -> tuple[list[tuple[int, int]], list[tuple[int, int]], int]:
        """(in, out) of the blocks before and after pooling, and the channels that reach the MLP."""
        if self.depth == 0:
            return [], [], source.width
        same = (self.width, self.width)
        return [(source.width, self.width), *[same] * (self.depth - 1)], [same] * self.depth, self.width

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Blocks of i i' + i' i' + 15 i' and the gate, N d_v for positions, then the MLP; see `_block_parameters`."""
        before, after, inner = self.widths(source)
        blocks = sum(_block_parameters(*widths) for widths in before + after)
        table = source.grid.rows * source.grid.columns * source.width if self.positions else 0
        ends = 2 * source.width * self.prenorm + self.eos_tokens * target.embedding_width
        return blocks + table + ends + mlp_parameters(inner, target.embedding_width, self.mlp_depth)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """With equal widths C: D [4 N C C + 18 N C + C C] + D [4 M C C + 18 M C + C C], and the MLP on M tokens."""
        before, after, inner = self.widths(source)
        patches, (rows, columns) = source.grid.rows * source.grid.columns, rows_columns(self.side)
        blocks = sum(_block_flops(patches, *widths) for widths in before)
        blocks += sum(_block_flops(rows * columns, *widths) for widths in after)
        tokens = source.grid.frames * rows * columns
        return source.grid.frames * blocks + mlp_flops(tokens, inner, target.embedding_width, self.mlp_depth)

    def build(self, source: FeatureShape, target: LLMShape) -> "CAbstractor":
        """The module, with Honeybee's initial weights."""
        check_patches_only(self, source)
        return CAbstractor(source, target.embedding_width, config=self)


class CAbstractor(Connector):
    """[views, frames * rows * columns, width] -> [views, frames * pooled rows * columns + eos, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: CAbstractorConfig) -> None:
        super().__init__()
        self.config = config
        self.in_dim, self.grid = source.width, source.grid
        before, after, inner = config.widths(source)
        self.prenorm = nn.LayerNorm(source.width, eps=NORM_EPS) if config.prenorm else None
        self.positions = make_table(source.grid.rows * source.grid.columns if config.positions else 0, source.width)
        self.before = _stage(before)
        self.after = _stage(after)
        self.project = make_readout(inner, out_dim, config.mlp_depth)
        self.eos = make_table(config.eos_tokens, out_dim)
        self.apply(initialise)

    def forward(self, features: Features) -> VisualTokens:
        """Mixes, pools, mixes, projects. Raises ValueError on another grid, when positions are learned."""
        check_features(self, features, self.in_dim)
        hidden = features.patches if self.prenorm is None else self.prenorm(features.patches)
        if self.positions is not None:
            check_same_grid(self, features.grid, self.grid)
            hidden = hidden + self.positions.repeat(1, features.grid.frames, 1)
        maps = pool(self.before(to_maps(hidden, features.grid)), *rows_columns(self.config.side))
        return VisualTokens(append(self.project(to_tokens(self.after(maps), features.grid.frames)), self.eos))


class RegNetBlock(nn.Module):
    """Pointwise, depthwise, squeeze and excite, pointwise, each with its norm; a residual around, SiLU after it."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first = Pointwise(in_dim, out_dim)
        self.first_norm = nn.LayerNorm(out_dim)
        self.depthwise = Depthwise(out_dim)
        self.depthwise_norm = nn.LayerNorm(out_dim)
        self.excite = SqueezeExcite(out_dim, _squeezed(in_dim), activation=functional.silu, gate=functional.sigmoid)
        self.last = Pointwise(out_dim, out_dim)
        self.last_norm = nn.LayerNorm(out_dim)
        self.shortcut = Pointwise(in_dim, out_dim) if in_dim != out_dim else None
        self.shortcut_norm = nn.LayerNorm(out_dim) if in_dim != out_dim else None

    def forward(self, maps: Float[Tensor, "maps h w in"]) -> Float[Tensor, "maps h w out"]:
        """[maps, h, w, in] -> [maps, h, w, out]."""
        hidden = functional.silu(self.first_norm(self.first(maps)))
        hidden = functional.silu(self.depthwise_norm(self.depthwise(hidden)))
        hidden = self.last_norm(self.last(self.excite(hidden)))
        if self.shortcut is not None and self.shortcut_norm is not None:
            maps = self.shortcut_norm(self.shortcut(maps))
        return functional.silu(hidden + maps)


def _stage(widths: list[tuple[int, int]]) -> nn.Sequential:
    """Blocks b1, b2, ..."""
    return nn.Sequential(OrderedDict((f"b{number}", RegNetBlock(*pair)) for number, pair in enumerate(widths, 1)))


def _squeezed(in_dim: int) -> int:
    """A quarter of the channels that enter the block, rounded to the even number at one half."""
    return round(in_dim / 4)


def _block_parameters(in_dim: int, out_dim: int) -> int:
    shortcut = in_dim * out_dim + 2 * out_dim if in_dim != out_dim else 0
    mixing = in_dim * out_dim + out_dim**2 + 9 * out_dim + 3 * 2 * out_dim
    return mixing + squeeze_parameters(out_dim, _squeezed(in_dim)) + shortcut


def _block_flops(positions: int, in_dim: int, out_dim: int) -> int:
    shortcut = in_dim * out_dim if in_dim != out_dim else 0
    return 2 * positions * (in_dim * out_dim + out_dim**2 + 9 * out_dim + shortcut) + 4 * out_dim * _squeezed(in_dim)
