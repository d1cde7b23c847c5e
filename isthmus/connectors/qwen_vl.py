"""Qwen-VL's adapter: one cross-attention with fixed 2-D positions on queries and keys, then a norm and a matrix.

Source: Qwen-VL (arXiv:2308.12966), section 2.1.
Checked against: the public `Resampler` of Qwen-VL's `visual.py` (oracles `qwen_vl_resampler*`).
Differs: grids need not be square, frames of a clip share their positions, and padding is skipped.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
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
from isthmus.connectors.fit import check_counts, check_patches, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.positions import resize_table, sincos_table
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class QwenVlConfig(ConnectorConfig):
    """`side` * `side` visual tokens whatever the grid, made at the language model's width."""

    side: int = 16
    """Rows and columns of queries; the table of positions is as large."""
    head_width: int = 128
    """Channels of a head; a language model narrower than that gets one head."""
    project: bool = True
    """End with the norm and the matrix that follow the adapter in the released code; the paper counts without them."""

    def __post_init__(self) -> None:
        check_counts(self, ("side", "head_width"))

    def num_tokens(self, grid: Grid) -> int:
        """side * side, whatever the grid."""
        return self.side**2

    def token_grid(self, grid: Grid) -> Grid:
        """A list: queries have positions, but may look anywhere."""
        return Grid(1, 1, self.num_tokens(grid))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d (0 when equal) + 4 (d d + d) + 4 d + M d, and d d + 2 d for norm and matrix; not the fixed table."""
        d = target.embedding_width
        widen = source.width * d if source.width != d else 0
        ends = d * d + 2 * d if self.project else 0
        return widen + attention_parameters(d, d) + 4 * d + self.side**2 * d + ends

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N d_v d (0 when equal) + 4 M d d + 4 N d d + 4 M N d, and 2 M d d for the matrix."""
        d, m, n = target.embedding_width, self.side**2, source.grid.size
        widen = 2 * n * source.width * d if source.width != d else 0
        return widen + attention_flops(m, n, d, d) + (2 * m * d * d if self.project else 0)

    def build(self, source: FeatureShape, target: LLMShape) -> "QwenVl":
        """The module with the released code's initial weights.

        Raises:
            ValueError: the language model's width divides by neither four nor the number of heads.
        """
        check_patches_only(self, source)
        heads_of_width(target.embedding_width, self.head_width, self)
        return QwenVl(source.width, target.embedding_width, config=self)


class QwenVl(Connector):
    """[views, patches, width] -> [views, side * side, embedding width]."""

    positions: Tensor

    def __init__(self, in_dim: int, out_dim: int, *, config: QwenVlConfig) -> None:
        super().__init__()
        self.in_dim, self.config = in_dim, config
        self.register_buffer("positions", sincos_table(config.side, out_dim))
        self.queries = fresh_queries(config.side**2, out_dim)
        self.widen = nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim, bias=False)
        self.norm_queries = nn.LayerNorm(out_dim, eps=NORM_EPS)
        self.norm_patches = nn.LayerNorm(out_dim, eps=NORM_EPS)
        heads = heads_of_width(out_dim, config.head_width, config)
        self.attention = CrossAttention(out_dim, heads=heads, source=out_dim)
        self.norm = nn.LayerNorm(out_dim, eps=NORM_EPS) if config.project else nn.Identity()
        self.project = nn.Linear(out_dim, out_dim, bias=False) if config.project else nn.Identity()
        self.apply(initialise_narrow)
        initialise_like_torch(self.attention)
        initialise_narrow(self.attention.out)
        if isinstance(self.project, nn.Linear):
            nn.init.normal_(self.project.weight, std=out_dim**-0.5)

    def forward(self, features: Features) -> VisualTokens:
        """Pools, then norm and matrix; patches that are not `valid` are not looked at."""
        check_patches(self, features, self.in_dim)
        return VisualTokens(self.project(self.norm(self.pool(features.patches, features.grid, features.valid))))

    def pool(
        self,
        patches: Float[Tensor, "views patches channels"],
        grid: Grid,
        valid: Bool[Tensor, "views patches"] | None = None,
    ) -> Float[Tensor, "views queries width"]:
        """The cross-attention: positions on queries and keys, none on values."""
        values = self.norm_patches(self.widen(patches))
        keys = values + self.key_positions(grid)
        pooled: Tensor = self.attention(self.norm_queries(self.queries) + self.positions, keys, values, valid)
        return pooled

    def key_positions(self, grid: Grid) -> Float[Tensor, "patches width"]:
        """The table, resized to the grid of the patches."""
        return resize_table(self.positions, self.config.side, grid)


QWEN_VL_KEYS = KeyMap(
    prefix="transformer.visual.",
    entries=(
        Entry("attn_pool.query", ("queries",)),
        Entry("attn_pool.pos_embed", ("positions",)),
        Entry("attn_pool.kv_proj", ("widen",)),
        Entry("attn_pool.ln_q", ("norm_queries",)),
        Entry("attn_pool.ln_kv", ("norm_patches",)),
        *torch_attention("attn_pool.attn", "attention"),
        Entry("ln_post", ("norm",)),
        Entry("proj", ("project.weight",), transposed=True),
    ),
)
"""The names of Qwen-VL's checkpoint against ours; the encoder's own stand below the same prefix."""
