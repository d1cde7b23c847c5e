"""Audio Q-Former: learned queries over the windows of a sound, each window with its position in time.

Source: Video-LLaMA (arXiv:2306.02858), section 2.1.2.
Checked against: DAMO-NLP-SG/Video-LLaMA `video_llama.py` `encode_audioQformer` (oracles `video_llama*`).
"""

from dataclasses import dataclass

from einops import rearrange
from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_patches, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.qformer import QFormerConfig
from isthmus.connectors.qformer_keys import timed_entries
from isthmus.connectors.qformer_stack import TimedQueries, check_steps
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class AudioQFormerConfig(ConnectorConfig):
    """`num_queries` tokens for a run of audio windows; the grid's frames are the windows."""

    num_queries: int = 8
    width: int = 768
    layers: int = 2
    """Every one has cross-attention."""
    heads: int = 12
    ffn_width: int = 3_072
    dropout: float = 0.1
    max_windows: int = 8

    def __post_init__(self) -> None:
        check_counts(self, ("max_windows",))
        assert self.sizes.layers == self.layers

    @property
    def sizes(self) -> QFormerConfig:
        """The same sizes as a Q-Former with cross-attention in every layer. Raises ValueError on impossible ones."""
        return QFormerConfig(
            num_queries=self.num_queries,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            ffn_width=self.ffn_width,
            cross_every=1,
            dropout=self.dropout,
        )

    def num_tokens(self, grid: Grid) -> int:
        """The number of queries, whatever the grid."""
        return self.num_queries

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Layers, queries M d, window positions W d_v, projection d d_l + d_l."""
        d, d_v, d_l = self.width, source.width, target.embedding_width
        return self.sizes.stack_parameters(d_v) + self.num_queries * d + self.max_windows * d_v + d * d_l + d_l

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """A Q-Former's pass over all tokens of all windows, and the projection 2 M d d_l."""
        seen = self.sizes.stack_flops(source.width, source.grid.size)
        return seen + 2 * self.num_queries * self.width * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "AudioQFormer":
        """The module. Raises ValueError on class tokens, several layers, or more windows than positions."""
        check_patches_only(self, source)
        check_steps(self, source.grid.frames, self.max_windows, "max_windows")
        return AudioQFormer(source.width, target.embedding_width, config=self)


class AudioQFormer(Connector):
    """[views, windows * tokens, width] -> [views, queries, embedding width]; a view is a run of windows."""

    def __init__(self, in_dim: int, out_dim: int, *, config: AudioQFormerConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        self.audio = TimedQueries(config.sizes, in_dim, steps=config.max_windows)
        self.project = nn.Linear(config.width, out_dim)

    def forward(self, features: Features) -> VisualTokens:
        """Windows with their positions, the queries over them, the projection. Padding is not looked at."""
        check_patches(self, features, self.in_dim)
        windows = features.grid.frames
        check_steps(self.config, windows, self.config.max_windows, "max_windows")
        tokens = rearrange(features.patches, "views (windows own) c -> views windows own c", windows=windows)
        valid = None
        if features.valid is not None:
            valid = rearrange(features.valid, "views (windows own) -> views windows own", windows=windows)
        return VisualTokens(self.project(self.audio(tokens, valid)))


VIDEO_LLAMA_AUDIO_KEYS = KeyMap(
    prefix="",
    entries=(
        *timed_entries("audio", "audio"),
        Entry("audio_position_embedding", ("audio.positions",)),
        Entry("audio_llama_proj", ("project",)),
    ),
)
"""The names of Video-LLaMA's audio branch against ours."""
