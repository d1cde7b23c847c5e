"""TokenPacker: a coarse grid of point queries, each looking at the patches of its own region in several layers.

Source: TokenPacker (arXiv:2407.02392).
Checked against: CircleRadon/TokenPacker `multimodal_projector/builder.py` (oracle `tokenpacker`).
Differs: patch grids need not be square, and each frame of a clip is packed by itself. Keys and values come from the
further layers that the encoder gives (as published: its `layers` name the second-last one, then 12, 16, 22 and 23); an
encoder that gives one layer alone makes queries, keys and values of it.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.cross_attention import initialise_narrow, torch_attention
from isthmus.connectors.fit import check_counts, check_features, check_heads, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.mlp import make_mlp, mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

NORM_EPS = 1e-6
TOKEN_PACKER_KEYS = KeyMap(
    "model.mm_projector.",
    (
        Entry("q_proj_1", ("point",)),
        Entry("ln_q_1", ("point_norm",)),
        Entry("k_proj_1.*", ("keys.*",)),
        Entry("ln_k_1", ("keys_norm",)),
        Entry("v_proj_1.*", ("values.*",)),
        Entry("ln_v_1", ("values_norm",)),
        *torch_attention("clip_attn", "attention"),
        Entry("mlp.*", ("project.*",)),
    ),
)
"""The names of CircleRadon/TokenPacker."""


@dataclass(frozen=True, kw_only=True)
class TokenPackerConfig(ConnectorConfig):
    """factor ** 2 times fewer tokens; the weights have the same shapes for every factor."""

    factor: int = 2
    """Side of the region that becomes one token, in patches."""
    width: int = 1_024
    heads: int = 8

    def __post_init__(self) -> None:
        check_counts(self, ("factor", "width", "heads"))
        check_heads(self, self.width, self.heads)

    def num_tokens(self, grid: Grid) -> int:
        """Patches / factor ** 2. Raises ValueError when a side of the grid does not divide."""
        if grid.rows % self.factor or grid.columns % self.factor:
            raise ValueError(
                f"TokenPackerConfig(factor={self.factor}) cannot divide a {grid.rows} x {grid.columns} patch grid in "
                f"regions: both sides must be multiples of {self.factor}. Change the image size, or use "
                f"CAbstractorConfig, which pools any grid."
            )
        return grid.size // self.factor**2

    def token_grid(self, grid: Grid) -> Grid:
        """One place a region."""
        self.num_tokens(grid)
        return Grid(grid.frames, grid.rows // self.factor, grid.columns // self.factor)

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + 2 (s d + d + d d + d) + 6 d + 4 (d d + d) + d d_l + d_l + d_l d_l + d_l; s channels of all levels."""
        d = self.width
        keys = mlp_parameters(_seen_width(source), d, 2)
        attention = 4 * (d * d + d)
        return source.width * d + 2 * keys + 6 * d + attention + mlp_parameters(d, target.embedding_width, 2)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 M d_v d + 4 N (s d + d d) + 4 N d d + 4 M d d + 4 N d + 2 M (d d_l + d_l d_l)."""
        d, n, m = self.width, source.grid.size, self.num_tokens(source.grid)
        keys = 2 * mlp_flops(n, _seen_width(source), d, 2)
        attention = 4 * n * d * d + 4 * m * d * d + 4 * n * d
        return 2 * m * source.width * d + keys + attention + mlp_flops(m, d, target.embedding_width, 2)

    def build(self, source: FeatureShape, target: LLMShape) -> "TokenPacker":
        """The module, with TokenPacker's initial weights. Raises ValueError when the grid does not divide."""
        check_patches_only(self, FeatureShape(width=source.width, grid=source.grid, prefix=source.prefix))
        self.num_tokens(source.grid)
        return TokenPacker(source, target.embedding_width, config=self)


def _seen_width(source: FeatureShape) -> int:
    """Channels that keys and values are made of."""
    return sum(source.level_widths) if source.level_widths else source.width


class TokenPacker(Connector):
    """[views, frames * rows * columns, width] -> [views, that / factor ** 2, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: TokenPackerConfig) -> None:
        super().__init__()
        self.config = config
        self.in_dim, self.level_widths = source.width, source.level_widths
        width = config.width
        self.point = nn.Linear(source.width, width, bias=False)
        self.point_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.keys = make_mlp(_seen_width(source), width, 2)
        self.keys_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.values = make_mlp(_seen_width(source), width, 2)
        self.values_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = RegionAttention(width, heads=config.heads)
        self.project = make_mlp(width, out_dim, 2)
        self.apply(initialise_narrow)

    def forward(self, features: Features) -> VisualTokens:
        """Packs every region into one token. Raises ValueError when the grid or the levels do not fit."""
        check_features(self, features, self.in_dim, self.level_widths)
        self.config.num_tokens(features.grid)
        seen = torch.cat(features.levels, dim=-1) if features.levels else features.patches
        points = self.point_norm(self.point(self.point_grid(features)))
        keys = self.regions(self.keys_norm(self.keys(seen)), features.grid)
        values = self.regions(self.values_norm(self.values(seen)), features.grid)
        return VisualTokens(self.project(self.attention(points, keys, values)))

    def point_grid(self, features: Features) -> Float[Tensor, "views tokens c"]:
        """The patches at the centre of every region: the middle one, or the mean of the middle four."""
        maps, (low, high) = self.regions(features.patches, features.grid), _middle(self.config.factor)
        square = rearrange(maps, "views m (a b) c -> views m a b c", a=self.config.factor)
        points: Tensor = reduce(square[:, :, low:high, low:high], "views m a b c -> views m c", "mean")
        return points

    def regions(self, patches: Float[Tensor, "views n c"], grid: Grid) -> Float[Tensor, "views tokens places c"]:
        """The patches of every region, row by row."""
        factor = self.config.factor
        regions: Tensor = rearrange(
            patches,
            "views (t h a w b) c -> views (t h w) (a b) c",
            t=grid.frames,
            h=grid.rows // factor,
            a=factor,
            b=factor,
        )
        return regions


class RegionAttention(nn.Module):
    """torch's `nn.MultiheadAttention` in four linear layers; every query has keys and values of its own."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        points: Float[Tensor, "views tokens width"],
        keys: Float[Tensor, "views tokens places width"],
        values: Float[Tensor, "views tokens places width"],
    ) -> Float[Tensor, "views tokens width"]:
        """What every point finds among its own keys."""
        apart = [rearrange(part, "views m s c -> (views m) s c") for part in (self.key(keys), self.value(values))]
        asked = rearrange(self.query(points), "views m c -> (views m) 1 c")
        seen = attend(asked, *apart, heads=self.heads)
        out: Tensor = self.out(rearrange(seen, "(views m) 1 c -> views m c", views=points.shape[0]))
        return out


def _middle(factor: int) -> tuple[int, int]:
    """First and last place (plus one) of the middle of a side."""
    return (factor - 1) // 2, factor // 2 + 1
