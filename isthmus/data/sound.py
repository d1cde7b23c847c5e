"""Sounds that are not loaded yet: audio files, or the sound of a video, resampled to one channel as they are read."""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from isthmus.data.images import content_key, packed_content
from isthmus.data.media import checked_stream, file_key, opened, opened_bytes
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
    """An hour at most is held in memory: `end_s` less `start_s`. What goes on after the first hour needs a stretch."""

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
            ValueError: naming the file: it is broken, has no sound, goes on after an hour where no end was chosen, or
                nothing is heard between start and end.
        """
        with opened(self.root, self.path) as (container, name):
            way_out = "A video without sound is read with FileVideo alone."
            samples = _read(container, checked_stream(container.streams.audio, name, "sound", way_out), self, name)
        return _checked(samples, self, name)


@dataclass(frozen=True, kw_only=True)
class PackedSound:
    """The whole sound file whose `size` bytes start at `offset` of an uncompressed archive (tar, zip)."""

    archive: str
    offset: int
    size: int
    rate: int = 16_000
    speed: float = 1.0
    """Played this much faster, and so much higher: another voice for training (Ko et al., Interspeech 2015)."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed <= 2.0:
            raise ValueError(f"PackedSound(speed={self.speed}) must be 0.5 to 2.")

    @property
    def name(self) -> str:
        """The archive's file name and the offset."""
        return f"{Path(self.archive).name}@{self.offset}"

    @cached_property
    def key(self) -> str:
        """The hash of the file's bytes, with rate and speed."""
        played = "" if self.speed == 1.0 else f"|speed {self.speed}"
        return f"{content_key(self._content())}|sound {self.rate}{played}"

    def load(self) -> Sound:
        """The samples. Raises ValueError naming the archive and the offset."""
        wanted = FileSound(root="", path=self.name, rate=round(self.rate / self.speed))
        with opened_bytes(self._content(), self.name) as container:
            stream = checked_stream(container.streams.audio, self.name, "sound", "Pack sound files.")
            samples = _read(container, stream, wanted, self.name)
        return Sound(samples=_checked(samples, wanted, self.name).samples, rate=self.rate)

    def _content(self) -> bytes:
        return packed_content(self.archive, self.offset, self.size, self.name)


def _checked(samples: npt.NDArray[np.float32], wanted: FileSound, name: str) -> Sound:
    if not len(samples):
        raise ValueError(f"{name} has no sound from {wanted.start_s} to {wanted.end_s} s.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds samples that are no finite numbers.")
    return Sound(samples=samples, rate=wanted.rate)


def _read(container: Any, stream: Any, wanted: FileSound, name: str) -> npt.NDArray[np.float32]:
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
        if place > last and wanted.end_s == MAX_SECONDS:
            raise ValueError(f"{name} lasts more than {MAX_SECONDS:.0f} s. Choose a stretch with start_s and end_s.")
        if place >= last and wanted.end_s != MAX_SECONDS:
            break
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
