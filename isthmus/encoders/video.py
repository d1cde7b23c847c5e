"""Clips: every frame through any vision tower, then one view of `frames` steps in time for any connector.

Source: Video-LLaMA (arXiv:2306.02858), section 2.1.1; the mean over frames: Video-ChatGPT (arXiv:2306.05424).
"""

import dataclasses
from dataclasses import dataclass, field

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from isthmus.config import fingerprint
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, untiled_plan
from isthmus.encoders.pixels import fit_image, to_pixels
from isthmus.encoders.steps import with_steps
from isthmus.encoders.tiles import OneView
from isthmus.encoders.vision import VisionEncoder, VisionTower
from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound


@dataclass(frozen=True, kw_only=True)
class VideoEncoder(EncoderConfig):
    """A clip is one view: `max_frames` steps in time, each with the tower's patches. An image is a clip of one frame.

    Clips with fewer frames are padded, and `Features.valid` says so: Q-Formers and resamplers look around padding,
    other connectors refuse it (give them clips of exactly `max_frames`: `UniformFrames(num=max_frames)`).
    """

    tower: VisionEncoder = field(default_factory=VisionEncoder)
    """What sees each frame, without tiles."""
    max_frames: int = 8
    pool: int = 1
    """Mean over so many neighbouring frames, patch by patch: `max_frames` / `pool` steps are left."""

    def __post_init__(self) -> None:
        if self.max_frames < 1 or self.pool < 1 or self.max_frames % self.pool:
            raise ValueError(
                f"VideoEncoder(max_frames={self.max_frames}, pool={self.pool}): both must be 1 or more, and max_frames "
                f"a multiple of pool."
            )
        if not isinstance(self.tower.tiles, OneView):
            raise ValueError(
                f"VideoEncoder sees each frame as one view, but its tower has {type(self.tower.tiles).__name__}. "
                f"Leave tiles=OneView(), or give clips to a VisionEncoder, for which every frame is a view."
            )

    @property
    def steps(self) -> int:
        """Steps in time that connectors see."""
        return self.max_frames // self.pool

    def shape(self) -> FeatureShape:
        """The tower's, with `steps` frames; every step has its own class and register tokens."""
        frame = self.tower.shape()
        grid = frame.grid._replace(frames=self.steps)
        return dataclasses.replace(frame, grid=grid, prefix=self.steps * frame.prefix)

    def build(self) -> "VideoTower":
        """The tower with its pretrained weights, in eval mode."""
        return VideoTower(self, self.tower.build())

    def fingerprint(self) -> str:
        """The tower's, with the number of frames and the pooling."""
        return fingerprint({"tower": self.tower.fingerprint(), "frames": self.max_frames, "pool": self.pool})

    def parameters(self) -> int:
        """Those of the tower."""
        return self.tower.parameters()

    def adapters(self) -> int:
        """Those of the tower."""
        return self.tower.adapters()

    def flops(self) -> int:
        """The tower's for each of `max_frames` frames."""
        return self.max_frames * self.tower.flops()

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """One view."""
        return untiled_plan(size, 1, first_view)

    def view_side(self) -> int:
        """The tower's."""
        return self.tower.image_size

    def plan_loaded(self, loaded: Image.Image | Clip | Sound, first_view: int = 0) -> Plan:
        """One view, of a clip as of an image."""
        assert not isinstance(loaded, Sound), "sounds are planned by AudioEncoder"
        return self.plan(loaded.frames[0].size if isinstance(loaded, Clip) else loaded.size, first_view)


class VideoTower(Encoder):
    """[views, frames, 3, side, side] -> `Features` of [views, steps * (prefix + patches), width]."""

    def __init__(self, config: VideoEncoder, tower: VisionTower) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape()
        self.tower = tower

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """One view: the frames of a clip in order, then padding; an image is a clip of one frame.

        Raises:
            ValueError: a sound, or a clip with more than `max_frames` frames.
        """
        if isinstance(image, Sound):
            raise ValueError("VideoEncoder sees clips and images, and got a sound. Sounds need an AudioEncoder.")
        frames = image.frames if isinstance(image, Clip) else (image,)
        most, sight = self.config.max_frames, self.config.tower
        if len(frames) > most:
            raise ValueError(
                f"A clip of {len(frames)} frames came to VideoEncoder(max_frames={most}). Read fewer frames "
                f"(FileVideo(frames=UniformFrames(num={most})), --frames uniform:{most}), or raise max_frames."
            )
        normalisation = self.tower.normalisation
        fitted = [fit_image(one, sight.image_size, sight.fit, normalisation) for one in frames]
        pixels = torch.stack([to_pixels(one, normalisation) for one in fitted])
        padding = torch.full((most - len(frames), *pixels.shape[1:]), float("nan"))
        return Prepared(pixels=torch.cat([pixels, padding])[None], size=frames[0].size, tiles=Grid(1, 1, 1))

    def forward(self, pixels: Float[Tensor, "views frames channels height width"]) -> Features:
        """Each frame through the tower, then the mean over neighbours; frames that are NaN are padding."""
        frames = pixels.shape[1]
        real = ~pixels[:, :, 0, 0, 0].isnan()
        seen = self.tower(rearrange(pixels.nan_to_num(), "views frames c h w -> (views frames) c h w"))
        own, pool, steps = seen.prefix, self.config.pool, frames // self.config.pool
        weights = rearrange(real.to(seen.tokens.dtype), "views frames -> (views frames)")
        valid = reduce(real, "views (steps pool) -> views steps", "any", pool=pool)

        def in_time(tokens: Tensor, prefix: int) -> Tensor:
            return with_steps(_pooled(tokens, weights, pool), steps, prefix)

        padded = not bool(valid.all())
        return Features(
            tokens=in_time(seen.tokens, own),
            grid=seen.grid._replace(frames=steps),
            prefix=steps * own,
            levels=tuple(in_time(level, 0) for level in seen.levels),
            valid=valid.repeat_interleave(seen.grid.size, dim=1) if padded else None,
        )


def _pooled(
    tokens: Float[Tensor, "frames tokens width"], real: Float[Tensor, " frames"], pool: int
) -> Float[Tensor, "steps tokens width"]:
    """The mean of every `pool` neighbouring frames, those that are padding left out; all padding gives zeros."""
    if pool == 1:
        return tokens * real[:, None, None]
    total = reduce(tokens * real[:, None, None], "(steps pool) t c -> steps t c", "sum", pool=pool)
    count = reduce(real, "(steps pool) -> steps", "sum", pool=pool).clamp_min(1)
    mean: Tensor = total / count[:, None, None]
    return mean
