"""Another source whose questions ask for a form of answer."""

from dataclasses import dataclass

from isthmus.data.response_formats import FormatPlace, ResponseFormat, with_format
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, SourceConfig


@dataclass(frozen=True, kw_only=True)
class Formatted(SourceConfig):
    """The samples of `of`, each user turn with a response-format sentence (LLaVA-1.5, arXiv:2310.03744)."""

    of: SourceConfig
    wanted: ResponseFormat = "short"
    place: FormatPlace = "after"

    @property
    def together(self) -> int:
        """As in the source underneath."""
        return self.of.together

    def build(self) -> Dataset:
        """The samples of the source underneath, asked anew."""
        return _Asked(self, self.of.build())


class _Asked:
    def __init__(self, config: Formatted, samples: Dataset) -> None:
        self._config, self._samples = config, samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return with_format(self._samples[index], self._config.wanted, self._config.place)
