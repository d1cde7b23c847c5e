"""Average pool: neighbouring patches are averaged to a smaller grid, then an MLP.

Source: DeCo (arXiv:2405.20985), section 3: compress patches without parameters, leave abstraction to the LLM.
Checked against: yaolinli/DeCo README, `AvgPoolProjector` (oracles `deco_avgpool*`).
Differs: grids need not be square, and each frame of a clip is pooled by itself.
"""

from dataclasses import dataclass

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_depth, check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import Side, check_side, pool, rows_columns, to_maps, to_tokens
from isthmus.connectors.mlp import make_mlp, mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class AveragePoolConfig(ConnectorConfig):
    """`side` rows and columns of visual tokens a frame. Where the grid does not divide, neighbouring bins overlap."""

    side: Side = 6
    """Rows and columns after pooling: one number for a square, or (rows, columns)."""
    depth: int = 2
    """Number of linear layers after pooling."""

    def __post_init__(self) -> None:
        check_depth(self, self.depth)
        check_side(self, self.side)

    def num_tokens(self, grid: Grid) -> int:
        """frames * rows * columns after pooling. Raises ValueError when the patch grid is smaller than that."""
        rows, columns = rows_columns(self.side)
        if rows > grid.rows or columns > grid.columns:
            raise ValueError(
                f"AveragePoolConfig(side={self.side}) cannot pool a {grid.rows} x {grid.columns} patch grid to "
                f"{rows} x {columns}: pooling only makes it smaller. Use side={min(grid.rows, grid.columns)} or "
                f"less, or a larger image."
            )
        return grid.frames * rows * columns

    def token_grid(self, grid: Grid) -> Grid:
        """The pooled rows and columns."""
        self.num_tokens(grid)
        return Grid(grid.frames, *rows_columns(self.side))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Those of the MLP: pooling has none."""
        return mlp_parameters(source.width, target.embedding_width, self.depth)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 M (d_v d + (depth - 1) d d): the additions of pooling are not counted."""
        return mlp_flops(self.num_tokens(source.grid), source.width, target.embedding_width, self.depth)

    def build(self, source: FeatureShape, target: LLMShape) -> "AveragePool":
        """The module. Raises ValueError when the grid is smaller than the pooled one."""
        check_patches_only(self, source)
        self.num_tokens(source.grid)
        return AveragePool(source.width, target.embedding_width, config=self)


DECO_KEYS = KeyMap("mlp_projector.", (Entry("*", ("project.*",)),))
"""The names of DeCo's projector against ours. Its code was published without weights, so imports know no such form."""


class AveragePool(Connector):
    """[views, frames * rows * columns, width] -> [views, frames * pooled rows * pooled columns, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: AveragePoolConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        self.project = make_mlp(in_dim, out_dim, config.depth)

    def forward(self, features: Features) -> VisualTokens:
        """Pools each frame, then projects. Raises ValueError when the grid is smaller than the pooled one."""
        check_features(self, features, self.in_dim)
        self.config.num_tokens(features.grid)
        maps = pool(to_maps(features.patches, features.grid), *rows_columns(self.config.side))
        return VisualTokens(self.project(to_tokens(maps, features.grid.frames)))
