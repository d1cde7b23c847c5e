"""What every data source is: a config that builds a dataset, and a source with its weight in a mixture."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from isthmus.data.sample import Sample


@runtime_checkable
class Dataset(Protocol):
    """Samples by number. `dataset[i]` is a pure function of `i`; it opens no image."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The sample of this number. Raises ValueError, naming file and line, when it cannot be made."""
        ...


@dataclass(frozen=True, kw_only=True)
class SourceConfig(ABC):
    """The choices of one data source."""

    @property
    def together(self) -> int:
        """How many samples, one after another, stand together in every order: 2 for pairs that are to be compared."""
        return 1

    @abstractmethod
    def build(self) -> Dataset:
        """Open the source. Raises ValueError when it is missing or empty."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data source and its weight: its share of the samples drawn, relative to the other weights of the mixture."""

    of: SourceConfig
    weight: float = 1.0
    whole_batches: bool = False
    """A batch is of this source alone, so that what is compared within it is of one kind. All sources of a stage or
    none; weights then share out batches."""
    unfit: Literal["refuse", "skip"] = "refuse"
    """A sample that the model refuses, such as one that is too long however it is cut, ends the training before its
    first step; or it is skipped as unreadable ones are: another of the source takes its place."""

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(
                f"A source's weight is above zero and finite, got {self.weight}. Leave the source out instead."
            )


def checked(index: int, length: int) -> int:
    """The index, when it is one of `length` samples. Raises IndexError otherwise (so that iteration ends)."""
    if not 0 <= index < length:
        raise IndexError(f"Sample {index} of a source with {length} samples.")
    return index
