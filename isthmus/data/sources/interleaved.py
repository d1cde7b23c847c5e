"""Another source with its images, videos and sounds in place for some samples, and in front of the text for others.

Source: LLaVA-NeXT-Interleave (arXiv:2407.07895), section 3.3: a mix of the two placements serves prompts of both forms.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from isthmus.data.interleave import frames_as_images, in_front
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, SourceConfig


@dataclass(frozen=True, kw_only=True)
class Interleaved(SourceConfig):
    """`front_share` of the samples of `of`, drawn by number and seed, have all inputs in front; the rest in place."""

    of: SourceConfig
    front_share: float = 0.5
    refer: bool = True
    """Inputs in front are named (`Image 1: <image>`), and their names stay in the text."""
    videos: Literal["clips", "images"] = "clips"
    """A video is one input, or a row of images, one a frame."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.front_share <= 1.0:
            raise ValueError(f"Interleaved(front_share={self.front_share}) is a share from 0 to 1.")

    def build(self) -> Dataset:
        """The source underneath, placed."""
        return _Placed(self, self.of.build())


class _Placed:
    def __init__(self, config: Interleaved, dataset: Dataset) -> None:
        self._config = config
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        config = self._config
        sample = self._dataset[index]
        if config.videos == "images" and sample.videos:
            sample = frames_as_images(sample)
        digest = hashlib.blake2b(f"{config.seed}|{index}".encode(), digest_size=8).digest()
        front = int.from_bytes(digest, "big") / 2**64 < config.front_share
        return in_front(sample, refer=config.refer) if front else sample
