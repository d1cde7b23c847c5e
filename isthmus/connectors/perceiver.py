"""Perceiver resampler: latents that look at the patches, and at each other, layer after layer.

Source: Flamingo (arXiv:2204.14198), section 3.1 and its appendix.
Checked against: mlfoundations/open_flamingo `PerceiverResampler` (oracles `open_flamingo_perceiver*`).
Differs: a linear map to the language model's width follows (`project`), for use as a soft prompt; padding is skipped.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.connectors.attention import attend
from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_patches, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.normed_linear import normed_linears, standardised
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class PerceiverConfig(ConnectorConfig):
    """`num_latents` visual tokens whatever the grid, made at the encoder's width. The defaults are OpenFlamingo's."""

    num_latents: int = 64
    layers: int = 6
    heads: int = 8
    head_width: int = 64
    """Channels of a head; the attention's inner width is heads * head_width, whatever the encoder's."""
    ffn_factor: int = 4
    max_frames: int = 0
    """Learned embeddings for so many frames of a clip, added to their patches; 0: frames are not told apart."""
    max_media: int = 0
    """Learned embeddings for a view's number among the images of its prompt; 0: images are not told apart."""
    project: bool = True
    """End with a linear layer to the language model's width; without it the tokens keep the encoder's."""

    def __post_init__(self) -> None:
        check_counts(self, ("num_latents", "layers", "heads", "head_width", "ffn_factor"))
        if self.max_frames < 0 or self.max_media < 0:
            raise ValueError(
                f"PerceiverConfig(max_frames={self.max_frames}, max_media={self.max_media}) must be 0 or more each."
            )

    @property
    def inner(self) -> int:
        """Width of queries, keys and values: heads * head_width."""
        return self.heads * self.head_width

    def num_tokens(self, grid: Grid) -> int:
        """The number of latents. Raises ValueError when there are more frames than embeddings for them."""
        if self.max_frames and grid.frames > self.max_frames:
            raise ValueError(
                f"PerceiverConfig(max_frames={self.max_frames}) has no embedding for frame {grid.frames} of a clip: "
                f"use max_frames={grid.frames}, fewer frames, or max_frames=0, which does not tell frames apart."
            )
        return self.num_latents

    def token_grid(self, grid: Grid) -> Grid:
        """Latents are a list: no token has a place in the image."""
        return Grid(1, 1, self.num_tokens(grid))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """L [6 d + 4 d I + 2 m d d] + M d + 2 d + (frames + media) d, and d d_l + d_l for the projection."""
        d, d_l = source.width, target.embedding_width
        layer = 6 * d + 4 * d * self.inner + 2 * self.ffn_factor * d * d
        embeddings = (self.num_latents + self.max_frames + self.max_media) * d
        return self.layers * layer + embeddings + 2 * d + (d * d_l + d_l if self.project else 0)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """L [4 M d I + 4 (N + M) d I + 4 M (N + M) I + 4 m M d d], and 2 M d d_l for the projection."""
        d, m, n, inner = source.width, self.num_latents, source.grid.size, self.inner
        attention = 4 * m * d * inner + 4 * (n + m) * d * inner + 4 * m * (n + m) * inner
        layer = attention + 4 * self.ffn_factor * m * d * d
        return self.layers * layer + (2 * m * d * target.embedding_width if self.project else 0)

    def build(self, source: FeatureShape, target: LLMShape) -> "Perceiver":
        """The module: latents at N(0, 1), torch's own initial weights elsewhere, as in OpenFlamingo."""
        check_patches_only(self, source)
        self.num_tokens(source.grid)
        if not self.project and source.width != target.embedding_width:
            raise ValueError(
                f"PerceiverConfig(project=False) gives tokens of the encoder's width {source.width}, but the language "
                f"model reads {target.embedding_width}. Set project=True."
            )
        return Perceiver(source.width, target.embedding_width, config=self)


class Perceiver(Connector):
    """[views, patches, width] -> [views, latents, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: PerceiverConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.resampler = PerceiverResampler(in_dim, config=config)
        self.project = nn.Linear(in_dim, out_dim) if config.project else nn.Identity()

    def forward(self, features: Features, media: Int[Tensor, " views"] | None = None) -> VisualTokens:
        """Resamples, then projects; `media` is as in `PerceiverResampler`."""
        check_patches(self, features, self.in_dim)
        return VisualTokens(self.project(self.resampler(features, media)))


class PerceiverResampler(nn.Module):
    """The layers alone, at the encoder's width: what Flamingo's gated cross-attention reads."""

    def __init__(self, width: int, *, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.num_latents, width))
        self.frames = nn.Parameter(torch.randn(config.max_frames, width)) if config.max_frames else None
        self.media = nn.Parameter(torch.randn(config.max_media, 1, width)) if config.max_media else None
        self.layers = nn.ModuleList(PerceiverLayer(width, config=config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, features: Features, media: Int[Tensor, " views"] | None = None
    ) -> Float[Tensor, "views latents width"]:
        """`media` is each view's number (from 0) among the images of its prompt; without it each counts as the first.

        Raises:
            ValueError: more frames than embeddings, or a view's number without one.
        """
        self.config.num_tokens(features.grid)
        seen = features.patches
        if self.frames is not None:
            clip = rearrange(seen, "views (t patches) d -> views t patches d", t=features.grid.frames)
            seen = (clip + self.frames[: features.grid.frames, None]).flatten(1, 2)
        if self.media is not None:
            seen = seen + (self.media[:1] if media is None else self.media[self._numbers(media)])
        latents = self.latents.expand(len(seen), -1, -1)
        first = self.layers[0]
        assert isinstance(first, PerceiverLayer)
        plain = standardised(seen, first.norm_patches)
        for layer in self.layers:
            latents = layer(latents, seen, features.valid, plain)
        normed: Tensor = self.norm(latents)
        return normed

    def _numbers(self, media: Tensor) -> Tensor:
        last = int(media.max()) if len(media) else 0
        if last >= self.config.max_media:
            raise ValueError(
                f"PerceiverConfig(max_media={self.config.max_media}) has no embedding for image {last + 1} of a "
                f"prompt: use max_media={last + 1} or more, or max_media=0, which does not tell images apart."
            )
        return media


class PerceiverLayer(nn.Module):
    """Latents look at patches and latents, then pass a feed-forward; pre-norm, residual, no biases but the norms'."""

    def __init__(self, width: int, *, config: PerceiverConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_patches = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.query = nn.Linear(width, config.inner, bias=False)
        self.pair = nn.Linear(width, 2 * config.inner, bias=False)
        self.out = nn.Linear(config.inner, width, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.ffn_factor * width, bias=False),
            nn.GELU(),
            nn.Linear(config.ffn_factor * width, width, bias=False),
        )

    def forward(
        self,
        latents: Float[Tensor, "views latents width"],
        patches: Float[Tensor, "views patches width"],
        valid: Bool[Tensor, "views patches"] | None,
        plain: Float[Tensor, "views patches width"] | None = None,
    ) -> Float[Tensor, "views latents width"]:
        """The latents after this layer; patches not `valid` are not looked at, `plain` are the standardised ones."""
        normed = self.norm_latents(latents)
        (seen,) = normed_linears(patches, self.norm_patches, [self.pair], plain=plain)
        keys, values = torch.cat([seen, self.pair(normed)], dim=1).chunk(2, dim=-1)
        mask = None if valid is None else nn.functional.pad(valid, (0, latents.shape[1]), value=True)[:, None]
        latents = latents + self.out(attend(self.query(normed), keys, values, heads=self.heads, mask=mask))
        fed: Tensor = latents + self.ffn(latents)
        return fed


PERCEIVER_KEYS = KeyMap(
    prefix="perceiver.",
    entries=(
        Entry("latents", ("latents",)),
        Entry("frame_embs", ("frames",)),
        Entry("media_time_embs", ("media",)),
        Entry("layers.*.0.norm_media", ("layers.*.norm_patches",)),
        Entry("layers.*.0.norm_latents", ("layers.*.norm_latents",)),
        Entry("layers.*.0.to_q", ("layers.*.query",)),
        Entry("layers.*.0.to_kv", ("layers.*.pair",)),
        Entry("layers.*.0.to_out", ("layers.*.out",)),
        Entry("layers.*.1.0", ("layers.*.ffn.0",)),
        Entry("layers.*.1.1", ("layers.*.ffn.1",)),
        Entry("layers.*.1.3", ("layers.*.ffn.3",)),
        Entry("norm", ("norm",)),
    ),
)
"""OpenFlamingo's names against those of `PerceiverResampler`."""
