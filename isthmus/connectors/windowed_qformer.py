"""Windowed Q-Former: in every window of the grid, its own shrunken features, plus learned queries, look at the window.

Source: the granite vision models (arXiv:2502.09927), in their fourth line, which has no paper; BLIP-2's layers.
Checked against: `transformers` Granite4VisionWindowQFormerDownsampler (oracles `granite4_vision_projector*`).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.dropout import Dropout
from isthmus.connectors.fit import check_counts, check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.qformer import QFormerConfig
from isthmus.connectors.qformer_keys import layer_entries
from isthmus.connectors.qformer_stack import QueryStack
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

Shrink = Literal["area", "top-left", "top-right", "bottom-left", "bottom-right"]
NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class WindowedQFormerConfig(ConnectorConfig):
    """`query_side`^2 tokens for every window of `window_side`^2 patches. Works at the encoder's own width.

    The published models have 4 and 8; the default keeps their rate and fits more grids.
    """

    query_side: int = 2
    window_side: int = 4
    shrink: Shrink = "area"
    """How features become queries: averaged, or one corner of every 2 x 2 block (then window_side = 2 * query_side)."""
    layers: int = 1
    head_width: int = 64
    """One attention head for so many channels of the encoder; a narrower one gets one head."""
    ffn_width: int = 3_072
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_counts(self, ("query_side", "window_side", "layers", "head_width", "ffn_width"))
        if self.shrink not in get_args(Shrink):
            raise ValueError(f"shrink must be one of {', '.join(get_args(Shrink))}, but it is {self.shrink!r}.")
        if self.shrink != "area" and self.window_side != 2 * self.query_side:
            raise ValueError(
                f"shrink={self.shrink!r} keeps one patch of every 2 x 2 block, so window_side must be twice "
                f'query_side, but they are {self.window_side} and {self.query_side}. Use shrink="area" for other rates.'
            )

    def windows(self, grid: Grid) -> int:
        """Windows in a view. Raises ValueError when the grid is not made of whole ones."""
        if grid.rows % self.window_side or grid.columns % self.window_side:
            raise ValueError(
                f"WindowedQFormerConfig(window_side={self.window_side}) cannot cut a {grid.rows} x {grid.columns} "
                f"patch grid: both sides must be multiples of {self.window_side}. Change the image size or "
                f"window_side, or use AveragePoolConfig, which accepts any grid."
            )
        return grid.frames * (grid.rows // self.window_side) * (grid.columns // self.window_side)

    def num_tokens(self, grid: Grid) -> int:
        """windows * query_side^2."""
        return self.windows(grid) * self.query_side**2

    def token_grid(self, grid: Grid) -> Grid:
        """The tokens keep the raster of the patches, shrunk."""
        rows, columns = (side // self.window_side * self.query_side for side in (grid.rows, grid.columns))
        return Grid(grid.frames, rows, columns)

    def sizes(self, width: int) -> QFormerConfig:
        """The layers as those of a Q-Former at the encoder's width. Raises ValueError when heads do not divide it."""
        heads = max(1, width // self.head_width)
        if width % heads:
            raise ValueError(
                f"Features of width {width} do not divide into heads of head_width={self.head_width}. "
                f"Give WindowedQFormerConfig a head_width that divides the width."
            )
        return QFormerConfig(
            num_queries=self.query_side**2,
            width=width,
            layers=self.layers,
            heads=heads,
            ffn_width=self.ffn_width,
            cross_every=1,
            dropout=self.dropout,
        )

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Layers at width d_v, norm 2 d_v, queries q^2 d_v, positions w^2 d_v, projection d_v d_l + d_l."""
        d_v, d_l = source.width, target.embedding_width
        ends = (2 + self.query_side**2 + self.window_side**2) * d_v + d_v * d_l + d_l
        return self.sizes(d_v).stack_parameters(d_v) + ends

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """A Q-Former's pass in every window, and the projection 2 M d_v d_l."""
        windows = self.windows(source.grid)
        inside = self.sizes(source.width).stack_flops(source.width, self.window_side**2)
        return windows * (inside + 2 * self.query_side**2 * source.width * target.embedding_width)

    def build(self, source: FeatureShape, target: LLMShape) -> "WindowedQFormer":
        """The module. Raises ValueError on class tokens, several layers, and a grid that windows do not fill."""
        check_patches_only(self, source)
        self.windows(source.grid)
        return WindowedQFormer(source.width, target.embedding_width, config=self)


class WindowedQFormer(Connector):
    """[views, frames * rows * columns, width] -> [views, that * (query_side / window_side)^2, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: WindowedQFormerConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        self.norm = nn.LayerNorm(in_dim, eps=NORM_EPS)
        self.queries = nn.Parameter(torch.empty(config.query_side**2, in_dim).normal_(std=in_dim**-0.5))
        self.positions = nn.Parameter(torch.empty(config.window_side**2, in_dim).normal_(std=in_dim**-0.5))
        self.stack = QueryStack(config.sizes(in_dim), in_dim)
        self.dropout = Dropout(config.dropout)
        self.project = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> VisualTokens:
        """Cut, look, put the windows back in raster order, project."""
        check_features(self, features, self.in_dim)
        self.config.windows(features.grid)
        maps = rearrange(
            self.norm(features.patches),
            "views (t h w) c -> views t h w c",
            t=features.grid.frames,
            h=features.grid.rows,
            w=features.grid.columns,
        )
        seen = self.stack(self.ask(maps), self.dropout(cut(maps, self.config.window_side) + self.positions))
        back = rearrange(
            seen,
            "(views t h w) (dh dw) c -> views (t h dh w dw) c",
            t=features.grid.frames,
            h=features.grid.rows // self.config.window_side,
            w=features.grid.columns // self.config.window_side,
            dh=self.config.query_side,
        )
        return VisualTokens(self.project(self.dropout(back)))

    def ask(self, maps: Float[Tensor, "views frames rows columns width"]) -> Float[Tensor, "windows queries width"]:
        """The queries of every window: its shrunken features, plus the learned ones."""
        return self.queries + cut(self.shrink(maps), self.config.query_side)

    def shrink(self, maps: Float[Tensor, "views t rows columns width"]) -> Float[Tensor, "views t h w width"]:
        """The maps at query_side / window_side of their sides: averaged areas, or one corner of each 2 x 2 block."""
        if self.config.shrink != "area":
            down, right = divmod(get_args(Shrink).index(self.config.shrink) - 1, 2)
            return maps[:, :, down::2, right::2]
        views, _, rows, columns, _ = maps.shape
        side, of = self.config.query_side, self.config.window_side
        sides = (rows // of * side, columns // of * side)
        images = rearrange(maps, "views t h w c -> (views t) c h w")
        small: Tensor = rearrange(
            functional.adaptive_avg_pool2d(images, sides), "(views t) c h w -> views t h w c", views=views
        )
        return small


def cut(maps: Float[Tensor, "views frames rows columns width"], side: int) -> Float[Tensor, "windows places width"]:
    """Windows of side^2 places, row by row, views and frames outermost; places row by row too."""
    pattern = "views t (h dh) (w dw) c -> (views t h w) (dh dw) c"
    windows: Tensor = rearrange(maps, pattern, dh=side, dw=side)
    return windows


GRANITE_KEYS = KeyMap(
    prefix="",
    entries=(
        Entry("norm", ("norm",)),
        Entry("query", ("queries",), batched=True),
        Entry("image_positions", ("positions",), batched=True),
        Entry("qformer.layernorm", ("stack.norm",)),
        *layer_entries("qformer.encoder.layer", "stack.layers", inner="attention"),
        Entry("out_linear", ("project",)),
    ),
)
"""The names of one projector of `transformers` Granite4Vision against ours."""
