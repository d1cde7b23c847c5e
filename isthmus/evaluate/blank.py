"""A sample without its picture: every input becomes one blank, so nothing but the text can be learned or answered."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from isthmus.data.sample import Sample
from isthmus.features import Sound


@dataclass(frozen=True, kw_only=True)
class BlankImage:
    """A mid-grey image of `side` x `side` pixels."""

    side: int = 96

    @property
    def key(self) -> str:
        """Equal for equal sides."""
        return f"blank-{self.side}"

    def load(self) -> Image.Image:
        """The RGB image."""
        return Image.new("RGB", (self.side, self.side), (127, 127, 127))


@dataclass(frozen=True, kw_only=True)
class Blanked:
    """A clip of as many grey frames, or a silence of the same length."""

    of: Any

    @property
    def key(self) -> str:
        """The key of what is blanked, marked."""
        return f"blank|{self.of.key}"

    def load(self) -> Any:
        """The grey clip or the silence. Raises ValueError when the original cannot be read."""
        loaded = self.of.load()
        if isinstance(loaded, Sound):
            return dataclasses.replace(loaded, samples=np.zeros_like(loaded.samples))
        grey = tuple(Image.new("RGB", frame.size, (127, 127, 127)) for frame in loaded.frames)
        return dataclasses.replace(loaded, frames=grey)


def blanked(sample: Sample) -> Sample:
    """The same turns over blank images, grey clips and silence."""
    return dataclasses.replace(
        sample,
        images=tuple(BlankImage() for _ in sample.images),
        videos=tuple(Blanked(of=video) for video in sample.videos),
        sounds=tuple(Blanked(of=sound) for sound in sample.sounds),
    )
