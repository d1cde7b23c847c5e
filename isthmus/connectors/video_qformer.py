"""Video Q-Former: an image Q-Former on every frame, then a second one over the frames in time.

Source: Video-LLaMA (arXiv:2306.02858), section 2.1.1.
Checked against: DAMO-NLP-SG/Video-LLaMA `video_llama.py` `encode_videoQformer_visual` (oracles `video_llama*`).
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from einops import rearrange, repeat
from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_no_levels, check_widths
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.qformer import QFormerConfig
from isthmus.connectors.qformer_keys import layer_entries, timed_entries
from isthmus.connectors.qformer_stack import FrameQueries, TimedQueries, check_steps
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class VideoQFormerConfig(ConnectorConfig):
    """`num_queries` tokens a clip, whatever its length. An image is a clip of one frame.

    The published recipe keeps `image` frozen, with the weights of a BLIP-2: a stage then names
    `train=("connector.video", "connector.project")`.
    """

    image: QFormerConfig = field(default_factory=QFormerConfig)
    """The image Q-Former that looks at each frame; its width, heads and feed-forward are the outer one's too."""
    num_queries: int = 32
    layers: int = 2
    """Of the outer Q-Former; every one has cross-attention."""
    max_frames: int = 32

    def __post_init__(self) -> None:
        for name in ("num_queries", "layers", "max_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"VideoQFormerConfig({name}={getattr(self, name)}) must be 1 or more.")
        if self.image.text or self.image.start_from is not None:
            raise ValueError(
                "The image Q-Former inside VideoQFormerConfig reads no text: leave its text=False and start_from=None. "
                "Its weights come from a trained BLIP-2."
            )

    projects_anew: ClassVar[bool] = True

    def continues(self, earlier: ConnectorConfig) -> bool:
        """A Q-Former of the inner one's sizes, which it then shows every frame; the rest starts fresh."""
        return self == earlier or (
            isinstance(earlier, QFormerConfig) and self.image.continues(replace(earlier, start_from=None))
        )

    def place_of(self, name: str, earlier: ConnectorConfig) -> str:
        """Inside, for a Q-Former."""
        if not isinstance(earlier, QFormerConfig):
            return name
        stacked = name.startswith(("layers.", "norm."))
        return f"image.stack.{name}" if stacked else f"image.{name}"

    @property
    def video(self) -> QFormerConfig:
        """The sizes of the outer Q-Former."""
        return replace(self.image, num_queries=self.num_queries, layers=self.layers, cross_every=1)

    def num_tokens(self, grid: Grid) -> int:
        """The number of outer queries, whatever the grid."""
        return self.num_queries

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Inner Q-Former with queries and ln_vision, frame positions, outer Q-Former with queries, projection."""
        d, d_l = self.image.width, target.embedding_width
        inner = self.image.stack_parameters(source.width) + self.image.num_queries * d + 2 * source.width
        outer = self.video.stack_parameters(d) + self.num_queries * d + self.max_frames * d
        return inner + outer + d * d_l + d_l

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """F inner passes over a frame each, one outer pass over F * M_image tokens, the projection."""
        frames, d = source.grid.frames, self.image.width
        inner = self.image.stack_flops(source.width, (source.prefix + source.grid.size) // frames)
        outer = self.video.stack_flops(d, frames * self.image.num_queries)
        return frames * inner + outer + 2 * self.num_queries * d * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "VideoQFormer":
        """The module.

        Raises:
            ValueError: several layers, more frames than positions, or prefix tokens that the frames do not share out.
        """
        check_no_levels(self, source)
        check_steps(self, source.grid.frames, self.max_frames, "max_frames")
        _check_prefix(source.prefix, source.grid)
        return VideoQFormer(source.width, target.embedding_width, config=self)


class VideoQFormer(Connector):
    """[views, frames * patches, width] -> [views, queries, embedding width]; a view is a clip."""

    def __init__(self, in_dim: int, out_dim: int, *, config: VideoQFormerConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        self.image = FrameQueries(config.image, in_dim)
        self.video = TimedQueries(config.video, config.image.width, steps=config.max_frames)
        self.project = nn.Linear(config.image.width, out_dim)

    def forward(self, features: Features) -> VisualTokens:
        """Each frame, then all frames in time, then the projection. A frame of padding alone is not looked at."""
        check_widths(self, features, self.in_dim)
        check_steps(self.config, features.grid.frames, self.config.max_frames, "max_frames")
        _check_prefix(features.prefix, features.grid)
        frames = self.image(features)
        valid = None
        if features.valid is not None:
            patches = rearrange(features.valid, "views (t patches) -> views t patches", t=features.grid.frames)
            real, queries = patches.any(dim=-1), self.config.image.num_queries
            valid = repeat(real, "views frames -> views frames queries", queries=queries)
        return VisualTokens(self.project(self.video(frames, valid)))


def _check_prefix(prefix: int, grid: Grid) -> None:
    if prefix % grid.frames:
        raise ValueError(
            f"A clip of {grid.frames} frames came with {prefix} class or register tokens, which the frames cannot "
            f"share equally. Give each frame its own, or set class_token=False in the encoder."
        )


VIDEO_LLAMA_KEYS = KeyMap(
    prefix="",
    entries=(
        Entry("query_tokens", ("image.queries",), batched=True),
        Entry("ln_vision", ("image.ln_vision",)),
        Entry("Qformer.bert.embeddings.LayerNorm", ("image.stack.norm",)),
        *layer_entries("Qformer.bert.encoder.layer", "image.stack.layers", inner="self"),
        *timed_entries("video", "video"),
        Entry("video_frame_position_embedding", ("video.positions",)),
        Entry("llama_proj", ("project",)),
    ),
)
"""The names of Video-LLaMA's vision branch against ours."""
