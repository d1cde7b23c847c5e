"""Another source with the frames of every video side by side in one image, for tiles to cut apart again.

Source: DeepStack (arXiv:2406.04334), section 4.3: six frames as 2 x 3, with
`AnyresTiles(grids=((3, 2),), pad=False)` and `DeepStack(groups=6)`.
"""

from dataclasses import dataclass

from isthmus.data.interleave import videos_as_mosaics
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, SourceConfig


@dataclass(frozen=True, kw_only=True)
class Mosaics(SourceConfig):
    """The samples of `of`, each video as one image of its frames, `columns` in a row."""

    of: SourceConfig
    columns: int = 3

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise ValueError(f"Mosaics(columns={self.columns}) must be 1 or more.")

    def build(self) -> Dataset:
        """The source underneath, its videos laid out."""
        return _LaidOut(self.of.build(), self.columns)


class _LaidOut:
    def __init__(self, samples: Dataset, columns: int) -> None:
        self._samples, self._columns = samples, columns

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return videos_as_mosaics(self._samples[index], self._columns)
