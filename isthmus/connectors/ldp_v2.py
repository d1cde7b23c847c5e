"""LDPv2: an MLP on every patch, average pooling to a fixed grid, and a depthwise convolution that tells places apart.

Source: MobileVLM V2 (arXiv:2402.03766).
Checked against: Meituan-AutoML/MobileVLM `vision_projector.py` (oracle `mobilevlm_ldpv2`).
Differs: patch and token grids need not be square or 12 x 12, and each frame of a clip is pooled by itself.
"""

from dataclasses import dataclass

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import Depthwise, Side, check_side, pool, rows_columns, to_maps, to_tokens
from isthmus.connectors.mlp import make_mlp, mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

LDP_V2_KEYS = KeyMap("model.mm_projector.", (Entry("mlp.mlp.*", ("project.*",)), Entry("peg.peg.0", ("neighbours",))))
"""The names of Meituan-AutoML/MobileVLM."""


@dataclass(frozen=True, kw_only=True)
class LdpV2Config(ConnectorConfig):
    """`side` rows and columns of visual tokens a frame, which may be more than there are patches."""

    side: Side = 12
    """Rows and columns after pooling: one number for a square, or (rows, columns)."""

    def __post_init__(self) -> None:
        check_side(self, self.side)

    def num_tokens(self, grid: Grid) -> int:
        """frames * rows * columns after pooling."""
        rows, columns = rows_columns(self.side)
        return grid.frames * rows * columns

    def token_grid(self, grid: Grid) -> Grid:
        """Rows and columns after pooling."""
        rows, columns = rows_columns(self.side)
        return Grid(grid.frames, rows, columns)

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + d + d d + d + 10 d."""
        return mlp_parameters(source.width, target.embedding_width, 2) + 10 * target.embedding_width

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N (d_v d + d d) + 18 M d: the MLP runs on every patch."""
        mixed = 18 * self.num_tokens(source.grid) * target.embedding_width
        return mlp_flops(source.grid.size, source.width, target.embedding_width, 2) + mixed

    def build(self, source: FeatureShape, target: LLMShape) -> "LdpV2":
        """The module, with torch's own initial weights as in MobileVLM."""
        check_patches_only(self, source)
        return LdpV2(source.width, target.embedding_width, config=self)


class LdpV2(Connector):
    """[views, frames * rows * columns, width] -> [views, frames * pooled rows * pooled columns, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: LdpV2Config) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        self.project = make_mlp(in_dim, out_dim, 2)
        self.neighbours = Depthwise(out_dim, bias=True)

    def forward(self, features: Features) -> VisualTokens:
        """Projects, pools, and adds what the neighbours say."""
        check_features(self, features, self.in_dim)
        maps = pool(to_maps(self.project(features.patches), features.grid), *rows_columns(self.config.side))
        return VisualTokens(to_tokens(maps + self.neighbours(maps), features.grid.frames))
