"""Honeybee's resampler: learned queries that look at themselves and at the features, layer by layer.

Source: Honeybee (arXiv:2312.06742), section 3.1 (its resampler baseline); mPLUG-Owl (arXiv:2304.14178) introduced it.
Checked against: khanrc/honeybee `resamplers.py` (oracle `honeybee_resampler`).
Differs: queries start at a truncated N(0, 0.02); zeros, as there, make all queries equal until dropout tells them
apart. Padded features are accepted and not looked at.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_dropout, check_heads, check_patches, check_patches_only
from isthmus.connectors.honeybee_mlp import check_eos, initialise, make_table
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import append, check_same_grid
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

_LAYER = {
    "query_norm": "norm1",
    "feature_norm": "normk",
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "out": "output.out_proj",
    "ffn_norm": "output.norm2",
    "gate": "output.mlp.w1",
    "widen": "output.mlp.w3",
    "inner_norm": "output.mlp.ffn_ln",
    "narrow": "output.mlp.w2",
}
HONEYBEE_RESAMPLER_KEYS = KeyMap(
    "abstractor.",
    (
        Entry("pos_emb", ("positions",)),
        Entry("query_tokens", ("queries",)),
        Entry("visual_input_fc", ("input",)),
        *(Entry(f"encoder.layers.*.crossattention.{theirs}", (f"layers.*.{ours}",)) for ours, theirs in _LAYER.items()),
        Entry("visual_output_fc", ("output",)),
        Entry("vit_eos", ("eos",)),
    ),
)
"""The names of khanrc/honeybee."""


@dataclass(frozen=True, kw_only=True)
class HoneybeeResamplerConfig(ConnectorConfig):
    """`num_queries` visual tokens whatever the grid. The defaults are Honeybee's: 105M parameters for CLIP-L and 7B."""

    num_queries: int = 64
    width: int = 1_024
    layers: int = 6
    heads: int = 16
    ffn_width: int = 4_096
    dropout: float = 0.1
    """Of the attention weights."""
    positions: bool = False
    """A learned vector added to every patch by its place; ties the weights to the patch grid."""
    eos_tokens: int = 0
    """Learned tokens after those of every view."""
    ffn_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        check_counts(self, ("num_queries", "width", "layers", "heads", "ffn_width"))
        check_heads(self, self.width, self.heads)
        check_dropout(self, self.dropout)
        check_eos(self, self.eos_tokens)

    def num_tokens(self, grid: Grid) -> int:
        """The queries and the learned end tokens, whatever the grid."""
        return self.num_queries + self.eos_tokens

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """L [4 (d d + d) + 6 d + 2 (d f + f) + f d + d + 2 f] + d_v d + d + d d_l + d_l + M d (+ N d_v, eos d_l)."""
        d, f, d_v, d_l = self.width, self.ffn_width, source.width, target.embedding_width
        layer = 4 * (d * d + d) + 6 * d + 2 * (d * f + f) + f * d + d + 2 * f
        table = source.grid.rows * source.grid.columns * d_v if self.positions else 0
        ends = d_v * d + d + d * d_l + d_l + self.num_queries * d + self.eos_tokens * d_l
        return self.layers * layer + ends + table

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """L [4 M d d + 4 (N + M) d d + 4 M (N + M) d + 6 M d f] + 2 N d_v d + 2 M d d_l."""
        m, d, n = self.num_queries, self.width, source.grid.size
        layer = 4 * m * d * d + 4 * (n + m) * d * d + 4 * m * (n + m) * d + 6 * m * d * self.ffn_width
        return self.layers * layer + 2 * n * source.width * d + 2 * m * d * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "HoneybeeResampler":
        """The module, with Honeybee's initial weights."""
        check_patches_only(self, source)
        return HoneybeeResampler(source, target.embedding_width, config=self)


class HoneybeeResampler(Connector):
    """[views, patches, width] -> [views, queries + eos, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: HoneybeeResamplerConfig) -> None:
        super().__init__()
        self.in_dim, self.grid = source.width, source.grid
        self.positions = make_table(source.grid.rows * source.grid.columns if config.positions else 0, source.width)
        self.input = nn.Linear(source.width, config.width)
        queries = torch.empty(1, config.num_queries, config.width)
        self.queries = nn.Parameter(nn.init.trunc_normal_(queries, std=0.02))
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.layers))
        self.output = nn.Linear(config.width, out_dim)
        self.eos = make_table(config.eos_tokens, out_dim)
        self.apply(initialise)

    def forward(self, features: Features) -> VisualTokens:
        """The queries after every layer, projected. Raises ValueError on another grid, when positions are learned."""
        check_patches(self, features, self.in_dim)
        seen = features.patches
        if self.positions is not None:
            check_same_grid(self, features.grid, self.grid)
            seen = seen + self.positions.repeat(1, features.grid.frames, 1)
        seen = self.input(seen)
        queries = self.queries.expand(seen.shape[0], -1, -1)
        mask = None
        if features.valid is not None:
            mask = functional.pad(features.valid, (queries.shape[1], 0), value=True)[:, None]
        for layer in self.layers:
            queries = layer(queries, seen, mask)
        return VisualTokens(append(self.output(queries), self.eos))


class ResamplerLayer(nn.Module):
    """Norms on queries and features, cross-attention to both, gated feed-forward; the residual is the normed query."""

    def __init__(self, config: HoneybeeResamplerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        width, inner = config.width, config.ffn_width
        self.query_norm = nn.LayerNorm(width)
        self.feature_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, inner)
        self.widen = nn.Linear(width, inner)
        self.inner_norm = nn.LayerNorm(inner, eps=config.ffn_norm_eps)
        self.narrow = nn.Linear(inner, width)

    def forward(
        self,
        queries: Float[Tensor, "views queries width"],
        features: Float[Tensor, "views patches width"],
        mask: Bool[Tensor, "views 1 sources"] | None,
    ) -> Float[Tensor, "views queries width"]:
        """`queries` after one layer. `mask` is true at queries and at real patches."""
        queries = self.query_norm(queries)
        sources = torch.cat([queries, self.feature_norm(features)], dim=1)
        seen = attend(
            self.query(queries),
            self.key(sources),
            self.value(sources),
            heads=self.heads,
            mask=mask,
            dropout=self.dropout if self.training else 0.0,
        )
        queries = queries + self.out(seen)
        normed = self.ffn_norm(queries)
        fed: Tensor = self.narrow(self.inner_norm(functional.silu(self.gate(normed)) * self.widen(normed)))
        return queries + fed
