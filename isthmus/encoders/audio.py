"""Any audio tower of `transformers` (AST, CLAP's audio part, Whisper's encoder) over windows of a sound.

Source: Video-LLaMA (arXiv:2306.02858), section 2.1.2: a sound is a few windows spread over its length, each encoded
alone. Checked against: the `transformers` models and their feature extractors.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from isthmus.config import fingerprint
from isthmus.encoders.audio_towers import (
    AudioFamily,
    audio_family,
    heard_s,
    make_audio_tower,
    read_audio_config,
    read_extractor,
)
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, untiled_plan
from isthmus.encoders.steps import with_steps
from isthmus.features import Clip, Features, FeatureShape, Grid, Plan, Sound
from isthmus.weights import folder_hash, resolve_model

SHORTEST = 1_000
"""Samples that every extractor can make a spectrogram of."""


@dataclass(frozen=True, kw_only=True)
class AudioEncoder(EncoderConfig):
    """Which tower, and which windows of a sound it hears.

    A sound is one view of `max_windows` steps in time, for connectors that look around padding (AudioQFormerConfig);
    with `window_views` every window is a view of its own, for any connector: a longer sound then takes more tokens.
    """

    name: str
    """A folder or hub id; of a whole CLAP or Whisper model the audio encoder is used."""
    window_s: float = 2.0
    """Length of a window in seconds; the tower's own extractor pads it to the length that it hears."""
    max_windows: int = 8
    """A sound of more windows is heard at so many, evenly spread from its beginning to its end."""
    window_views: bool = False
    pool: Literal["none", "mean"] = "none"
    """Keep the tower's map of every window (frequency by time), or its mean as one token."""
    windows_at_once: int = 16

    def __post_init__(self) -> None:
        if self.max_windows < 1 or self.windows_at_once < 1 or not 0.01 <= self.window_s <= 60.0:
            raise ValueError(
                f"AudioEncoder(window_s={self.window_s}, max_windows={self.max_windows}, windows_at_once="
                f"{self.windows_at_once}): windows last 0.01 to 60 s, and there is one at least."
            )

    def shape(self) -> FeatureShape:
        """Width and grid (windows, frequency, time), from the config files, by shapes alone."""
        width, grid = _heard(self.source(), self.window_s)
        grid = Grid(1, 1, 1) if self.pool == "mean" else grid
        return FeatureShape(width=width, grid=grid._replace(frames=1 if self.window_views else self.max_windows))

    @property
    def rate(self) -> int:
        """Samples a second that the tower hears; give it `FileSound(rate=...)` of this."""
        return int(read_extractor(self.source()).sampling_rate)

    def source(self) -> str:
        """Folder or hub id."""
        return resolve_model(self.name)

    def build(self) -> "AudioTower":
        """The tower with its pretrained weights, in eval mode."""
        return AudioTower(self)

    def fingerprint(self) -> str:
        """This config, with the content of the model folder (or the hub id) for its name."""
        source = self.source()
        content = folder_hash(source) if Path(source).is_dir() else source
        return fingerprint(dataclasses.replace(self, name=content, windows_at_once=16))

    def parameters(self) -> int:
        """Parameters of the encoder."""
        return sum(one.numel() for one in _skeleton(self.source()).parameters())

    def flops(self) -> int:
        """Counted over one view on the meta device."""
        from torch.utils.flop_counter import FlopCounterMode

        source = self.source()
        family, tower = audio_family(read_audio_config(source)), _skeleton(source)
        with FlopCounterMode(display=False) as counter:
            family.run(tower, _silence(source, self.window_s))
        return int(counter.get_total_flops()) * (1 if self.window_views else self.max_windows)

    def plan(self, size: tuple[int, int], first_view: int = 0) -> Plan:
        """One view; windows that are views of their own follow from the sound."""
        return untiled_plan(size, 1, first_view)

    def plan_loaded(self, loaded: Image.Image | Clip | Sound, first_view: int = 0) -> Plan:
        """The sound's windows where they are views, else one."""
        assert isinstance(loaded, Sound), "images and clips are planned by other encoders"
        heard = len(windows(loaded.samples, round(self.window_s * self.rate), self.max_windows))
        return untiled_plan((len(loaded.samples), 1), heard if self.window_views else 1, first_view)

    def most_views(self) -> int:
        """`max_windows` where windows are views, else one."""
        return self.max_windows if self.window_views else 1


class AudioTower(Encoder):
    """[views, windows, 1, bins, frames] of a spectrogram -> `Features` of [views, windows * patches, width]."""

    def __init__(self, config: AudioEncoder) -> None:
        super().__init__()
        self.config = config
        self.shape = config.shape()
        source = config.source()
        settings = read_audio_config(source)
        self.family: AudioFamily = audio_family(settings)
        self.extractor = read_extractor(source)
        self.tower: nn.Module = make_audio_tower(settings, source)

    def prepare(self, image: Image.Image | Clip | Sound) -> Prepared:
        """The spectrograms of the sound's windows; its size is (samples, 1).

        Raises:
            ValueError: not a sound, an empty one, or one of another rate than the tower hears.
        """
        if not isinstance(image, Sound):
            raise ValueError(f"AudioEncoder hears sounds, and got {type(image).__name__}. Images need a VisionEncoder.")
        config, rate = self.config, int(self.extractor.sampling_rate)
        if image.rate != rate or not len(image.samples):
            raise ValueError(
                f"A sound of {len(image.samples)} samples at {image.rate} Hz came to {config.name!r}, which hears "
                f"{rate} Hz. Read it with FileSound(rate={rate})."
            )
        heard = windows(image.samples, round(config.window_s * rate), config.max_windows)
        bins = torch.stack([spectrogram(self.extractor, one) for one in heard])
        if config.window_views:
            return Prepared(pixels=bins[:, None], size=(len(image.samples), 1), tiles=Grid(len(bins), 1, 1))
        padding = torch.full((config.max_windows - len(bins), *bins.shape[1:]), float("nan"))
        return Prepared(pixels=torch.cat([bins, padding])[None], size=(len(image.samples), 1), tiles=Grid(1, 1, 1))

    def blank(self) -> Float[Tensor, "views windows channels height width"]:
        """The spectrogram of a moment of silence, all zero."""
        still = Sound(samples=np.zeros(SHORTEST, dtype=np.float32), rate=int(self.extractor.sampling_rate))
        return torch.zeros_like(self.prepare(still).pixels)

    def forward(self, pixels: Float[Tensor, "views windows channels height width"]) -> Features:
        """Each window through the tower; windows that are NaN are padding."""
        steps = pixels.shape[1]
        real = ~pixels[:, :, 0, 0, 0].isnan()
        flat = rearrange(pixels.nan_to_num(), "views steps c h w -> (views steps) c h w")
        maps = torch.cat([self.family.run(self.tower, part) for part in torch.split(flat, self.config.windows_at_once)])
        grid = Grid(steps, maps.shape[1], maps.shape[2])
        tokens = rearrange(maps, "windows f t c -> windows (f t) c")
        if self.config.pool == "mean":
            grid, tokens = Grid(steps, 1, 1), reduce(tokens, "windows patches c -> windows 1 c", "mean")
        padded = not bool(real.all())
        return Features(
            tokens=with_steps(tokens * rearrange(real, "views steps -> (views steps) 1 1"), steps, 0),
            grid=grid,
            valid=real.repeat_interleave(grid.rows * grid.columns, dim=1) if padded else None,
        )


def windows(samples: npt.NDArray[np.float32], length: int, most: int) -> list[npt.NDArray[np.float32]]:
    """Windows of `length` samples: one after another while `most` are enough, else `most` evenly spread, ends included.

    The last of windows one after another may be shorter.
    """
    count = math.ceil(len(samples) / length)
    if count <= most:
        return [samples[start : start + length] for start in range(0, len(samples), length)]
    room = len(samples) - length
    return [samples[start : start + length] for start in (round(room * k / max(1, most - 1)) for k in range(most))]


def spectrogram(extractor: Any, samples: npt.NDArray[np.float32]) -> Float[Tensor, "channels height width"]:
    """What the model's own feature extractor makes of these samples, with one channel.

    The rest of a sound may be shorter than one frame of a spectrogram; it is filled up with silence.
    """
    samples = np.pad(samples, (0, max(0, SHORTEST - len(samples))))
    made = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    found: Tensor = made[extractor.model_input_names[0]][0].float()
    return found if found.dim() == 3 else found[None]


@functools.lru_cache(maxsize=16)
def _heard(source: str, window_s: float) -> tuple[int, Grid]:
    """Width and grid of one window, by running shapes alone. Raises ValueError when the tower would cut windows."""
    settings = read_audio_config(source)
    most_s = heard_s(read_extractor(source))
    if window_s > most_s + 1e-6:
        raise ValueError(
            f"AudioEncoder(window_s={window_s}): {source!r} hears {most_s:g} s at a time and would cut the rest. Use "
            f"window_s={most_s:g} or less, and more windows."
        )
    maps = audio_family(settings).run(_skeleton(source), _silence(source, window_s))
    return int(maps.shape[3]), Grid(1, int(maps.shape[1]), int(maps.shape[2]))


@functools.lru_cache(maxsize=16)
def _skeleton(source: str) -> nn.Module:
    with torch.device("meta"):
        return make_audio_tower(read_audio_config(source), None)


def _silence(source: str, window_s: float) -> Tensor:
    extractor = read_extractor(source)
    still = np.zeros(round(window_s * extractor.sampling_rate), dtype=np.float32)
    return spectrogram(extractor, still)[None].to("meta")
