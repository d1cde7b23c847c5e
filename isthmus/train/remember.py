"""Samples made once: the datasets of a process, with what they gave kept in memory."""

from collections import OrderedDict
from dataclasses import dataclass, replace

from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, Source, SourceConfig

MAX_SAMPLES = 100_000
"""Samples kept of one dataset; further ones are made again each time."""
_MAX_DATASETS = 8


@dataclass(frozen=True, kw_only=True)
class Remembered(SourceConfig):
    """Another source whose samples are made once in this process, for epochs and later runs ask for them again."""

    of: SourceConfig

    @property
    def together(self) -> int:
        """As in the source underneath."""
        return self.of.together

    def build(self) -> Dataset:
        """The source underneath, opened once."""
        known = _OPENED.get(self.of)
        if known is None:
            known = RememberedDataset(self.of.build())
            _OPENED[self.of] = known
            if len(_OPENED) > _MAX_DATASETS:
                _OPENED.popitem(last=False)
        _OPENED.move_to_end(self.of)
        return known


class RememberedDataset:
    """A dataset and the samples it gave."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples.get(index)
        if sample is None:
            sample = self.dataset[index]
            if len(self.samples) < MAX_SAMPLES:
                self.samples[index] = sample
        return sample


_OPENED: OrderedDict[SourceConfig, RememberedDataset] = OrderedDict()


def remembered(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """The same sources, remembered."""
    return tuple(replace(source, of=Remembered(of=source.of)) for source in sources)
