"""Sounds that are not loaded yet: audio files, or the sound of a video, resampled to one channel as they are read."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from isthmus.data.media import checked_stream, file_key, opened
from isthmus.features import Sound

MAX_SECONDS = 3_600.0


@dataclass(frozen=True, kw_only=True)
class FileSound:
    """The sound of the file at `path` below `root`, from `start_s` to `end_s`, as one channel of `rate` a second."""

    root: str
    path: str
    rate: int = 16_000
    start_s: float = 0.0
    end_s: float = MAX_SECONDS
    """An hour at most is held in memory: `end_s` less `start_s`."""

    def __post_init__(self) -> None:
        if not 1_000 <= self.rate <= 192_000:
            raise ValueError(f"FileSound(rate={self.rate}) must be 1000 to 192000 samples a second.")
        if not 0.0 < self.end_s - self.start_s <= MAX_SECONDS or self.start_s < 0.0:
            raise ValueError(
                f"FileSound(start_s={self.start_s}, end_s={self.end_s}) must be a stretch of at most {MAX_SECONDS} s."
            )

    @property
    def key(self) -> str:
        """The hash of the file's bytes, with rate and stretch."""
        return f"{file_key(self.root, self.path)}|sound {self.rate}|{self.start_s}-{self.end_s}"

    def load(self) -> Sound:
        """The samples.

        Raises:
            ValueError: naming the file: it is broken, has no sound, or nothing is heard between start and end.
        """
        with opened(self.root, self.path) as (container, name):
            way_out = "A video without sound is read with FileVideo alone."
            samples = _read(container, checked_stream(container.streams.audio, name, "sound", way_out), self)
        if not len(samples):
            raise ValueError(f"{name} has no sound from {self.start_s} to {self.end_s} s.")
        if not np.isfinite(samples).all():
            raise ValueError(f"{name} holds samples that are no finite numbers.")
        return Sound(samples=samples, rate=self.rate)


def _read(container: Any, stream: Any, wanted: FileSound) -> npt.NDArray[np.float32]:
    """The mean of the channels over the wanted stretch; what comes before it is decoded and dropped."""
    first, last = round(wanted.start_s * wanted.rate), round(wanted.end_s * wanted.rate)
    resampler = av.AudioResampler(format="fltp", rate=wanted.rate)
    parts: list[npt.NDArray[np.float32]] = []
    place = 0
    for frame in chain(container.decode(stream), (None,)):  # None lets out what the resampler still holds
        for made in resampler.resample(frame):
            heard = made.to_ndarray().mean(axis=0, dtype=np.float32)
            begin, end = max(0, first - place), max(0, min(len(heard), last - place))
            if begin < end:
                parts.append(heard[begin:end])
            place += len(heard)
        if place >= last:
            break
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
