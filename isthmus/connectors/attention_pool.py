"""Attention pooling: k learned queries look at the patches once, then a linear layer.

Source: MM1 (arXiv:2403.09611), section 3.2, after CoCa's attentional pooler.
Checked against: torch's `nn.MultiheadAttention` with equal weights. MM1's own code is not public, and its text does not
give the pooler's norms, width or heads: these follow open_clip's `AttentionalPooler` (CoCa).
"""

from dataclasses import dataclass

import torch
from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.cross_attention import (
    CrossAttention,
    attention_flops,
    attention_parameters,
    initialise_like_torch,
)
from isthmus.connectors.fit import check_counts, check_heads, check_patches, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class AttentionPoolConfig(ConnectorConfig):
    """`num_queries` visual tokens whatever the grid; MM1 compares 64 and 144."""

    num_queries: int = 144
    width: int = 1_024
    """Width of queries, keys and values."""
    heads: int = 8

    def __post_init__(self) -> None:
        check_counts(self, ("num_queries", "width", "heads"))
        check_heads(self, self.width, self.heads)

    def num_tokens(self, grid: Grid) -> int:
        """The number of queries, whatever the grid."""
        return self.num_queries

    def token_grid(self, grid: Grid) -> Grid:
        """Queries are a list: no token has a place in the image."""
        return Grid(1, 1, self.num_tokens(grid))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """2 (d d + d) + 2 (d_v d + d) + 2 d_v + 2 d + M d + d d_l + d_l."""
        d, d_l = self.width, target.embedding_width
        ends = 2 * source.width + 2 * d + self.num_queries * d + d * d_l + d_l
        return attention_parameters(d, source.width) + ends

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """4 M d d + 4 N d_v d + 4 M N d + 2 M d d_l."""
        attention = attention_flops(self.num_queries, source.grid.size, self.width, source.width)
        return attention + 2 * self.num_queries * self.width * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "AttentionPool":
        """The module: queries at N(0, 1), attention as torch starts it."""
        check_patches_only(self, source)
        return AttentionPool(source.width, target.embedding_width, config=self)


class AttentionPool(Connector):
    """[views, patches, width] -> [views, queries, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: AttentionPoolConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.queries = nn.Parameter(torch.randn(config.num_queries, config.width))
        self.norm_queries = nn.LayerNorm(config.width)
        self.norm_patches = nn.LayerNorm(in_dim)
        self.attention = CrossAttention(config.width, heads=config.heads, source=in_dim)
        self.project = nn.Linear(config.width, out_dim)
        initialise_like_torch(self.attention)

    def forward(self, features: Features) -> VisualTokens:
        """Pools, then projects; patches that are not `valid` are not looked at."""
        check_patches(self, features, self.in_dim)
        seen = self.norm_patches(features.patches)
        pooled = self.attention(self.norm_queries(self.queries), seen, seen, features.valid)
        return VisualTokens(self.project(pooled))
