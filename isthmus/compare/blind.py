"""The text-only arm's data: any source with every image blanked."""

from dataclasses import dataclass, replace

from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, Source, SourceConfig
from isthmus.evaluate.blank import blanked


@dataclass(frozen=True, kw_only=True)
class Blind(SourceConfig):
    """The samples of another source over one blank image.

    The model keeps its connector and its number of visual tokens, so it can still learn the questions' habits (a
    frozen language model with no connector could learn nothing at all), but nothing of any picture.
    """

    of: SourceConfig

    @property
    def together(self) -> int:
        """As in the source underneath."""
        return self.of.together

    def build(self) -> Dataset:
        """Open the source underneath."""
        return BlindDataset(self.of.build())


class BlindDataset:
    """Samples of `dataset`, blanked."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return blanked(self.dataset[index])


def blind(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """The same mixture, blanked."""
    return tuple(replace(source, of=Blind(of=source.of)) for source in sources)
