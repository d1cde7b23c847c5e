"""D-Abstractor: queries on a grid, each looking at a few points of the features near its own place, layer by layer.

Source: Honeybee (arXiv:2312.06742), section 3.2.
Checked against: khanrc/honeybee `dabs.py`, `DAbstractor`, with the decoder layers of `transformers` Deformable DETR
(oracles `honeybee_dabstractor*`).
Differs: no compiled kernel; patch and token grids need not be square; each frame of a clip is abstracted by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.deformable import DeformableAttention, reference_points, start_around
from isthmus.connectors.dropout import Dropout
from isthmus.connectors.fit import check_counts, check_dropout, check_features, check_heads, check_patches_only
from isthmus.connectors.honeybee_mlp import check_eos, initialise, make_table
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import Side, append, check_same_grid, check_side, pool, rows_columns, to_maps
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}
Pooled = Literal["query", "content", "none"]
_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "norm": "self_attn_layer_norm",
    "cross.offsets": "encoder_attn.sampling_offsets",
    "cross.weights": "encoder_attn.attention_weights",
    "cross.value": "encoder_attn.value_proj",
    "cross.out": "encoder_attn.output_proj",
    "cross_norm": "encoder_attn_layer_norm",
    "widen": "fc1",
    "narrow": "fc2",
    "last_norm": "final_layer_norm",
}
D_ABSTRACTOR_KEYS = KeyMap(
    "abstractor.",
    (
        Entry("v_pos_emb", ("positions",)),
        Entry("input_proj.*", ("inputs.*",)),
        Entry("level_emb", ("level_table",)),
        Entry("query_position_embeddings.weight", ("queries",)),
        Entry("reference_points", ("references",)),
        *(Entry(f"layers.*.{theirs}", (f"layers.*.{ours}",)) for ours, theirs in _LAYER.items()),
        Entry("eos_tokens", ("eos",)),
        Entry("output_proj", ("output",)),
    ),
)
"""The names of khanrc/honeybee."""


@dataclass(frozen=True, kw_only=True)
class DAbstractorConfig(ConnectorConfig):
    """`side` rows and columns of visual tokens a frame. The defaults are Honeybee's, and Deformable DETR's sizes."""

    side: Side = 12
    """Rows and columns of queries: one number for a square, or (rows, columns)."""
    width: int = 1_024
    layers: int = 6
    heads: int = 8
    points: int = 4
    """Places a head looks at."""
    ffn_width: int = 1_024
    pooled: Pooled = "query"
    """What the pooled features are: the queries' positions ("query"), their content, or nothing ("none")."""
    positions: bool = True
    """A learned vector added to every patch by its place."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the feed-forward."""
    eos_tokens: int = 0
    """Learned tokens after those of every view."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_side(self, self.side)
        check_eos(self, self.eos_tokens)
        check_counts(self, ("width", "layers", "heads", "points", "ffn_width"))
        check_heads(self, self.width, self.heads)
        check_dropout(self, self.dropout)
        if self.pooled not in get_args(Pooled):
            raise ValueError(f"DAbstractorConfig(pooled={self.pooled!r}) is unknown: use 'query', 'content' or 'none'.")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"DAbstractorConfig(activation={self.activation!r}) is unknown: use 'relu' or 'gelu'.")

    @property
    def num_queries(self) -> int:
        """Queries a frame."""
        rows, columns = rows_columns(self.side)
        return rows * columns

    def num_tokens(self, grid: Grid) -> int:
        """frames * rows * columns of queries, and the learned ones."""
        return grid.frames * self.num_queries + self.eos_tokens

    def token_grid(self, grid: Grid) -> Grid:
        """Rows and columns of queries; one row when learned tokens follow."""
        if self.eos_tokens:
            return Grid(1, 1, self.num_tokens(grid))
        rows, columns = rows_columns(self.side)
        return Grid(grid.frames, rows, columns)

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """L [6 (d d + d) + 3 d s + 3 s + 2 d f + f + d + 6 d] with s = heads levels points, and the ends."""
        d, f, m = self.width, self.ffn_width, self.num_queries
        widths = (source.width, *source.level_widths)
        places = self.heads * len(widths) * self.points
        layer = 6 * (d * d + d) + 3 * places * (d + 1) + 2 * d * f + f + d + 6 * d
        inputs = sum(width * d + d for width in widths if width != d) + (len(widths) * d if len(widths) > 1 else 0)
        table = source.grid.rows * source.grid.columns * d if self.positions else 0
        queries = m * d * (2 if self.pooled == "none" else 1) + 2 * m + self.eos_tokens * d
        output = d * target.embedding_width + target.embedding_width if target.embedding_width != d else 0
        return self.layers * layer + inputs + table + queries + output

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """L [10 M d d + 4 M M d + 2 l N d d + 6 M d s + 4 M d f] a frame, input and output; no interpolation."""
        d, m, patches = self.width, self.num_queries, source.grid.rows * source.grid.columns
        widths = (source.width, *source.level_widths)
        places = self.heads * len(widths) * self.points
        layer = 10 * m * d * d + 4 * m * m * d + 2 * len(widths) * patches * d * d
        layer += 6 * m * d * places + 4 * m * d * self.ffn_width
        inputs = sum(2 * patches * width * d for width in widths if width != d)
        output = 2 * self.num_tokens(source.grid) * d * target.embedding_width if target.embedding_width != d else 0
        return source.grid.frames * (self.layers * layer + inputs) + output

    def build(self, source: FeatureShape, target: LLMShape) -> "DAbstractor":
        """The module. Raises ValueError for several encoder layers, unless pooled="none" (as in Honeybee)."""
        check_patches_only(self, source if self.pooled != "none" else replace(source, level_widths=()))
        return DAbstractor(source, target.embedding_width, config=self)


class DAbstractor(Connector):
    """[views, frames * rows * columns, width] -> [views, frames * queries + eos, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: DAbstractorConfig) -> None:
        super().__init__()
        self.config = config
        self.in_dim, self.level_widths, self.grid = source.width, source.level_widths, source.grid
        widths, width = (source.width, *source.level_widths), config.width
        rows, columns = rows_columns(config.side)
        self.inputs = nn.ModuleList(nn.Identity() if one == width else nn.Linear(one, width) for one in widths)
        self.level_table = nn.Parameter(torch.randn(1, len(widths), 1, width)) if len(widths) > 1 else None
        self.positions = make_table(source.grid.rows * source.grid.columns if config.positions else 0, width)
        query_width = width * (2 if config.pooled == "none" else 1)
        self.queries = nn.Parameter(torch.randn(config.num_queries, query_width) * 0.02)
        self.references = nn.Parameter(reference_points((source.grid.rows, source.grid.columns), rows, columns))
        self.layers = nn.ModuleList(DAbstractorLayer(config, len(widths)) for _ in range(config.layers))
        self.eos = make_table(config.eos_tokens, width)
        self.output = nn.Identity() if out_dim == width else nn.Linear(width, out_dim)
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                start_around(module)

    def forward(self, features: Features) -> VisualTokens:
        """The queries after every layer, projected. Raises ValueError on another grid, when positions are learned."""
        check_features(self, features, self.in_dim, self.level_widths)
        if self.positions is not None:
            check_same_grid(self, features.grid, self.grid)
        levels = []
        for number, (given, project) in enumerate(zip((features.patches, *features.levels), self.inputs, strict=True)):
            hidden = project(given)
            if self.positions is not None:
                hidden = hidden + self.positions.repeat(1, features.grid.frames, 1)
            if self.level_table is not None:
                hidden = hidden + self.level_table[:, number]
            levels.append(to_maps(hidden, features.grid))
        position, content = self._queries(levels[0])
        for layer in self.layers:
            content = layer(content, position, levels, self.references)
        tokens = rearrange(content, "(views t) m c -> views (t m) c", t=features.grid.frames)
        return VisualTokens(self.output(append(tokens, self.eos)))

    def _queries(self, maps: Float[Tensor, "maps h w width"]) -> tuple[Tensor, Tensor]:
        """Positions and contents of the queries, [maps, queries, width] each."""
        learned = self.queries.expand(maps.shape[0], -1, -1)
        if self.config.pooled == "none":
            position, content = learned.chunk(2, dim=-1)
            return position, content
        pooled = rearrange(pool(maps, *rows_columns(self.config.side)), "maps h w c -> maps (h w) c")
        return (pooled, learned) if self.config.pooled == "query" else (learned, pooled)


class DAbstractorLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the features, feed-forward; norms after each sum."""

    def __init__(self, config: DAbstractorConfig, levels: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.cross = DeformableAttention(width, heads=config.heads, points=config.points, levels=levels)
        self.cross_norm = nn.LayerNorm(width)
        self.activate = _ACTIVATIONS[config.activation]
        self.widen = nn.Linear(width, config.ffn_width)
        self.narrow = nn.Linear(config.ffn_width, width)
        self.last_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        content: Float[Tensor, "maps queries width"],
        position: Float[Tensor, "maps queries width"],
        levels: list[Float[Tensor, "maps rows columns width"]],
        references: Float[Tensor, "1 queries 2"],
    ) -> Float[Tensor, "maps queries width"]:
        """`content` after one layer; `position` is added where queries look, not to what they carry."""
        placed = content + position
        seen = attend(self.query(placed), self.key(placed), self.value(content), heads=self.heads)
        content = self.norm(content + self.dropout(self.out(seen)))
        content = self.cross_norm(content + self.dropout(self.cross(content + position, levels, references)))
        fed = self.narrow(self.activate(self.widen(content)))
        last: Tensor = self.last_norm(content + self.dropout(fed))
        return last
