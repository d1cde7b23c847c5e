"""Matryoshka queries: one cross-attention whose first m queries alone are used, so m is free after one training.

Source: Matryoshka Query Transformer (arXiv:2405.19315).
Checked against: gordonhu608/MQT-LLaVA `multimodal_projector/builder.py` (oracle `mqt_resampler`), and its draws of m.
As in that code keys are positions alone and values patches alone: where a query looks does not depend on the image.
Differs: grids need not be square, and frames of a clip share their positions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.cross_attention import (
    CrossAttention,
    attention_flops,
    attention_parameters,
    fresh_queries,
    heads_of_width,
    initialise_like_torch,
    initialise_narrow,
    torch_attention,
)
from isthmus.connectors.fit import check_counts, check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.positions import resize_table, sincos_table
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(ConnectorConfig):
    """`tokens` visual tokens whatever the grid: the first of `side` * `side` queries. The weights serve any number."""

    tokens: int = 256
    """How many tokens a view gives, from 1 to side * side."""
    side: int = 16
    """Rows and columns of queries; the table of positions is as large."""
    head_width: int = 64
    """Channels of a head; an encoder narrower than that gets one head."""
    varies: bool = True
    """Train with a number of tokens drawn for every step; False keeps `tokens`, as the paper's first stage does."""

    def __post_init__(self) -> None:
        check_counts(self, ("side", "head_width"))
        self.check_tokens(self.tokens)

    @property
    def num_queries(self) -> int:
        """side * side: the most tokens there are."""
        return self.side**2

    def check_tokens(self, tokens: int) -> None:
        """Raises ValueError unless there are as many queries."""
        if not 1 <= tokens <= self.num_queries:
            raise ValueError(
                f"MatryoshkaConfig(tokens={tokens}, side={self.side}) has {self.num_queries} queries: tokens must be "
                f"from 1 to {self.num_queries}. For more tokens raise side, before training."
            )

    def draw(self, seed: int, step: int) -> int:
        """The number of tokens of a training step: the same in every process, and again after a resumption."""
        return self.draw_from(random.Random(f"matryoshka {seed} {step}"))

    def draw_from(self, generator: random.Random) -> int:
        """One draw as the released code makes it: an even number from 2 to all queries, each as likely."""
        return generator.choice(self._drawn)

    @property
    def _drawn(self) -> Sequence[int]:
        return range(2, self.num_queries + 1, 2) or (1,)

    def at_most(self) -> ConnectorConfig:
        """The largest number that may be drawn, where it varies and is the larger."""
        return replace(self, tokens=max(self.tokens, *self._drawn)) if self.varies else self

    def at_step(self, seed: int, step: int) -> ConnectorConfig:
        """As many tokens as are drawn for this step, where they vary."""
        return replace(self, tokens=self.draw(seed, step)) if self.varies else self

    def shares_weights(self, other: ConnectorConfig) -> bool:
        """The number of tokens, and whether it varies, are free."""
        return isinstance(other, MatryoshkaConfig) and self == replace(other, tokens=self.tokens, varies=self.varies)

    def num_tokens(self, grid: Grid) -> int:
        """`tokens`, whatever the grid."""
        return self.tokens

    def token_grid(self, grid: Grid) -> Grid:
        """A list: the first queries alone fill no map."""
        return Grid(1, 1, self.num_tokens(grid))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """4 (d_v d_v + d_v) + 6 d_v + Q d_v + d_v d, Q all queries; the fixed table is not counted."""
        d = source.width
        return attention_parameters(d, d) + 6 * d + self.num_queries * d + d * target.embedding_width

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """4 M d_v d_v + 4 N d_v d_v + 4 M N d_v + 2 M d_v d, M the tokens in use."""
        d, m = source.width, self.tokens
        return attention_flops(m, source.grid.size, d, d) + 2 * m * d * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "Matryoshka":
        """The module with the released code's initial weights.

        Raises:
            ValueError: the encoder's width divides by neither four nor the number of heads.
        """
        check_patches_only(self, source)
        heads_of_width(source.width, self.head_width, self)
        return Matryoshka(source.width, target.embedding_width, config=self)


class Matryoshka(Connector):
    """[views, patches, width] -> [views, tokens, embedding width]."""

    positions: Tensor

    def __init__(self, in_dim: int, out_dim: int, *, config: MatryoshkaConfig) -> None:
        super().__init__()
        self.in_dim, self.config = in_dim, config
        self.tokens = config.tokens
        self.register_buffer("positions", sincos_table(config.side, in_dim).half().float())
        self.queries = fresh_queries(config.num_queries, in_dim)
        self.norm_queries = nn.LayerNorm(in_dim, eps=NORM_EPS)
        self.norm_positions = nn.LayerNorm(in_dim, eps=NORM_EPS)
        self.norm_patches = nn.LayerNorm(in_dim, eps=NORM_EPS)
        heads = heads_of_width(in_dim, config.head_width, config)
        self.attention = CrossAttention(in_dim, heads=heads, source=in_dim)
        self.project = nn.Linear(in_dim, out_dim, bias=False)
        initialise_like_torch(self.attention)
        initialise_narrow(self.attention.out)
        nn.init.normal_(self.project.weight, std=out_dim**-0.5)

    def use(self, tokens: int) -> None:
        """Give so many tokens from now on. Raises ValueError when there are fewer queries."""
        self.config.check_tokens(tokens)
        self.tokens = tokens

    def follow(self, config: ConnectorConfig) -> None:
        """Give as many tokens as this config does. Raises ValueError when its weights would be others."""
        if not isinstance(config, MatryoshkaConfig) or not config.shares_weights(self.config):
            raise ValueError(f"{config} needs other weights than those built for {self.config}.")
        self.use(config.tokens)

    def forward(self, features: Features) -> VisualTokens:
        """The first `tokens` queries, projected."""
        check_features(self, features, self.in_dim)
        weights = self.weights(features.grid)
        values = self.attention.value(self.norm_patches(features.patches))
        joined = rearrange(values, "views patches (heads inner) -> heads patches (views inner)", heads=len(weights))
        answer = "heads tokens (views inner) -> views tokens (heads inner)"
        seen = rearrange(weights @ joined, answer, views=len(values))
        return VisualTokens(self.project(self.attention.out(seen)))

    def weights(self, grid: Grid) -> Float[Tensor, "heads tokens patches"]:
        """Where each query in use looks: the same for every image of this grid."""
        queries = self.queries[: self.tokens] + self.positions[: self.tokens]
        split, heads = "places (heads inner) -> heads places inner", self.attention.heads
        asked = rearrange(self.attention.query(self.norm_queries(queries)), split, heads=heads)
        keys = self.attention.key(self.norm_positions(self.key_positions(grid)))
        scores = (asked * asked.shape[-1] ** -0.5) @ rearrange(keys, split, heads=heads).transpose(-1, -2)
        return torch.softmax(scores, dim=-1)

    def key_positions(self, grid: Grid) -> Float[Tensor, "patches width"]:
        """The table, resized to the grid of the patches."""
        return resize_table(self.positions, self.config.side, grid)


MATRYOSHKA_KEYS = KeyMap(
    prefix="model.query_abstractor.",
    entries=(
        Entry("query", ("queries",)),
        Entry("pos_embed", ("positions",)),
        Entry("ln_q", ("norm_queries",)),
        Entry("ln_k", ("norm_positions",)),
        Entry("ln_v", ("norm_patches",)),
        *torch_attention("attn", "attention"),
        Entry("proj", ("project.weight",), transposed=True),
    ),
)
"""The names of MQT-LLaVA's checkpoint against ours."""
