"""Idefics2's connector: a gated MLP on every patch, then a Perceiver with grouped-query attention and RMSNorm.

Source: Idefics2 (arXiv:2405.02246), section 3.
Checked against: `transformers` Idefics2Connector, padding included (oracle `idefics2_perceiver`, and the class itself).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_patches, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

Activation = Literal["silu", "gelu", "gelu-tanh"]
_FFN_FACTOR = 4


@dataclass(frozen=True, kw_only=True)
class Idefics2Config(ConnectorConfig):
    """`num_latents` visual tokens whatever the grid; padded patches are skipped. The defaults are Idefics2-8B's."""

    num_latents: int = 64
    layers: int = 3
    heads: int = 16
    kv_heads: int = 4
    """Heads of keys and values; each serves heads / kv_heads heads of queries."""
    head_width: int = 96
    project_width: int = 14_336
    """Inner width of the gated MLP; Idefics2 takes that of its language model's feed-forward."""
    project_activation: Activation = "silu"
    activation: Activation = "silu"
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        check_counts(self, ("num_latents", "layers", "heads", "kv_heads", "head_width", "project_width"))
        if self.heads % self.kv_heads:
            raise ValueError(f"Idefics2Config(heads={self.heads}) does not divide by kv_heads={self.kv_heads}.")

    def num_tokens(self, grid: Grid) -> int:
        """The number of latents, whatever the grid."""
        return self.num_latents

    def token_grid(self, grid: Grid) -> Grid:
        """Latents are a list: no token has a place in the image."""
        return Grid(1, 1, self.num_tokens(grid))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """P (2 d_v + d) + L [2 d I + 2 d K + 12 d d + 3 d] + M d + d; I and K: heads and kv_heads * head_width."""
        d = target.embedding_width
        attention = 2 * d * self.head_width * (self.heads + self.kv_heads)
        layer = attention + 3 * _FFN_FACTOR * d * d + 3 * d
        return self.project_width * (2 * source.width + d) + self.layers * layer + self.num_latents * d + d

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N P (2 d_v + d) + L [4 M d I + 4 (N + M) d K + 4 M (N + M) I + 24 M d d]."""
        d, m, n = target.embedding_width, self.num_latents, source.grid.size
        wide, narrow = self.heads * self.head_width, self.kv_heads * self.head_width
        attention = 4 * m * d * wide + 4 * (n + m) * d * narrow + 4 * m * (n + m) * wide
        project = 2 * n * self.project_width * (2 * source.width + d)
        return project + self.layers * (attention + 6 * _FFN_FACTOR * m * d * d)

    def build(self, source: FeatureShape, target: LLMShape) -> "Idefics2":
        """The module: latents at one, matrices at N(0, 0.02), as in `transformers`."""
        check_patches_only(self, source)
        return Idefics2(source.width, target.embedding_width, config=self)


class Idefics2(Connector):
    """[views, patches, width] -> [views, latents, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: Idefics2Config) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.project = GatedMlp(in_dim, config.project_width, out_dim, activation=config.project_activation)
        self.latents = nn.Parameter(torch.ones(config.num_latents, out_dim))
        self.layers = nn.ModuleList(Idefics2Layer(out_dim, config=config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(out_dim, eps=config.norm_eps)
        self.apply(_initialise)

    def forward(self, features: Features) -> VisualTokens:
        """Projects every patch, then resamples; patches that are not `valid` are not looked at."""
        check_patches(self, features, self.in_dim)
        seen = self.project(features.patches)
        mask = None
        if features.valid is not None:
            mask = functional.pad(features.valid, (0, len(self.latents)), value=True)[:, None]
        latents = self.latents.expand(len(seen), -1, -1)
        for layer in self.layers:
            latents = layer(latents, seen, mask)
        return VisualTokens(self.norm(latents))


class GatedMlp(nn.Module):
    """down(act(gate(x)) * up(x)), no biases."""

    def __init__(self, in_dim: int, inner: int, out_dim: int, *, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(in_dim, inner, bias=False)
        self.up = nn.Linear(in_dim, inner, bias=False)
        self.down = nn.Linear(inner, out_dim, bias=False)

    def forward(self, given: Float[Tensor, "views places _"]) -> Float[Tensor, "views places _"]:
        """Every place alone."""
        gate = self.gate(given)
        if self.activation == "silu":
            opened = functional.silu(gate)
        else:
            opened = functional.gelu(gate, approximate="tanh" if self.activation == "gelu-tanh" else "none")
        made: Tensor = self.down(opened * self.up(given))
        return made


class Idefics2Layer(nn.Module):
    """Latents look at patches and latents, then pass a gated MLP; pre-norm, residual, no biases."""

    def __init__(self, width: int, *, config: Idefics2Config) -> None:
        super().__init__()
        self.kv_heads = config.kv_heads
        wide, narrow = config.heads * config.head_width, config.kv_heads * config.head_width
        self.norm_latents = nn.RMSNorm(width, eps=config.norm_eps)
        self.norm_patches = nn.RMSNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, wide, bias=False)
        self.key = nn.Linear(width, narrow, bias=False)
        self.value = nn.Linear(width, narrow, bias=False)
        self.out = nn.Linear(wide, width, bias=False)
        self.norm_ffn = nn.RMSNorm(width, eps=config.norm_eps)
        self.ffn = GatedMlp(width, _FFN_FACTOR * width, width, activation=config.activation)

    def forward(
        self,
        latents: Float[Tensor, "views latents width"],
        patches: Float[Tensor, "views patches width"],
        mask: Bool[Tensor, "views 1 sources"] | None,
    ) -> Float[Tensor, "views latents width"]:
        """The latents after this layer. The queries that share a head of keys stand side by side as more places."""
        normed = self.norm_latents(latents)
        sources = torch.cat([self.norm_patches(patches), normed], dim=1)
        grouped = "views latents (heads group inner) -> views (latents group) (heads inner)"
        back = "views (latents group) (heads inner) -> views latents (heads group inner)"
        sizes = {"heads": self.kv_heads, "latents": latents.shape[1]}
        inner = self.key.out_features // self.kv_heads
        asked = rearrange(self.query(normed), grouped, heads=self.kv_heads, inner=inner)
        found = attend(asked, self.key(sources), self.value(sources), heads=self.kv_heads, mask=mask)
        latents = latents + self.out(rearrange(found, back, **sizes))
        fed: Tensor = latents + self.ffn(self.norm_ffn(latents))
        return fed


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)


_PERCEIVER = "perceiver_resampler"
IDEFICS2_KEYS = KeyMap(
    prefix="model.connector.",
    entries=(
        *(Entry(f"modality_projection.{part}_proj", (f"project.{part}",)) for part in ("gate", "up", "down")),
        Entry(f"{_PERCEIVER}.latents", ("latents",)),
        Entry(f"{_PERCEIVER}.layers.*.input_latents_norm", ("layers.*.norm_latents",)),
        Entry(f"{_PERCEIVER}.layers.*.input_context_norm", ("layers.*.norm_patches",)),
        Entry(f"{_PERCEIVER}.layers.*.post_attention_layernorm", ("layers.*.norm_ffn",)),
        Entry(f"{_PERCEIVER}.layers.*.self_attn.q_proj", ("layers.*.query",)),
        Entry(f"{_PERCEIVER}.layers.*.self_attn.k_proj", ("layers.*.key",)),
        Entry(f"{_PERCEIVER}.layers.*.self_attn.v_proj", ("layers.*.value",)),
        Entry(f"{_PERCEIVER}.layers.*.self_attn.o_proj", ("layers.*.out",)),
        *(
            Entry(f"{_PERCEIVER}.layers.*.mlp.{part}_proj", (f"layers.*.ffn.{part}",))
            for part in ("gate", "up", "down")
        ),
        Entry(f"{_PERCEIVER}.norm", ("norm",)),
    ),
)
"""The names of `transformers` (which are the published ones) against ours."""
