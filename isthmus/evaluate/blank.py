"""A sample without its picture: every image becomes one blank, so nothing but the text can be learned or answered."""

import dataclasses
from dataclasses import dataclass

from PIL import Image

from isthmus.data.sample import ImageRef, Sample


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


def blanked(sample: Sample) -> Sample:
    """The same turns over blank images."""
    images: tuple[ImageRef, ...] = tuple(BlankImage() for _ in sample.images)
    return dataclasses.replace(sample, images=images)
