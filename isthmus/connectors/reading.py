"""A batch of images and captions that objectives of alignment share: what it can be asked, and in what order is free.

Every text-reading connector gives its own `Reading`, which computes each pass once, when it is first asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.features import Captions, Text

Vectors = Literal["queries", "features", "sum"]
"""What stands for an image: the queries' outputs, the encoder's features pooled, or the sum of both."""


IGNORED = -100
"""In a caption's targets: nothing is supervised here."""
Part = Literal["contrast", "match", "write"]


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What objectives ask of a reading, for each image; costs count it."""

    contrast: bool = False
    """A vector of its caption."""
    queries: bool = False
    """Vectors of its queries."""
    features: bool = False
    """A vector of its pooled features."""
    match: int = 0
    """Pairs that are judged."""
    mined: bool = False
    """Whether these are drawn by similarities, so that they are read after the other passes."""
    write: bool = False
    """Its caption is written."""

    def joined(self, other: "Passes") -> "Passes":
        """What both ask."""
        return Passes(
            contrast=self.contrast or other.contrast,
            queries=self.queries or other.queries,
            features=self.features or other.features,
            match=self.match + other.match,
            mined=self.mined or other.mined,
            write=self.write or other.write,
        )


@runtime_checkable
class Reading(Protocol):
    """Images and captions of one batch, row by row."""

    def expect(self, part: Part, text: Text | None = None, *, alone: bool = False) -> None:
        """Say before anything is asked that a part will be, for match with its pairs' text (one row an image, or more).

        Connectors that read several parts in one pass then need one. `alone`: dropout must draw for this part what it
        draws where no other is expected.
        """
        ...

    def images(self, vectors: Vectors) -> Float[Tensor, "rows vectors embedding"]:
        """Vectors of each image, to be compared with texts. Raises ValueError for a kind that the connector lacks."""
        ...

    def texts(self) -> Float[Tensor, "rows embedding"]:
        """A vector of length 1 for each caption."""
        ...

    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by: the inverse temperature."""
        ...

    def seen(self) -> Float[Tensor, "rows patches channels"]:
        """The images' features as the connector looks at them, to be exchanged between processes."""
        ...

    def match(
        self, text: Text, owner: Sequence[int], others: Float[Tensor, "others patches channels"] | None
    ) -> Float[Tensor, "pairs 2"]:
        """Logits of "does not match" and "matches" for text `i` with image `owner[i]`.

        Owners count the batch's images and then the `others`, which are what `seen` gave elsewhere.
        """
        ...

    def write(self) -> tuple[Float[Tensor, "supervised vocabulary"], Int[Tensor, " supervised"]]:
        """Logits at every supervised place of the captions, and the ids that belong there."""
        ...


def supervised(captions: Captions) -> tuple[Bool[Tensor, "rows before_last"], Int[Tensor, " supervised"]]:
    """Where a caption's next token is supervised, the last place left out, and the ids that belong there."""
    targets = captions.targets[:, 1:]
    places = targets != IGNORED
    return places, targets[places]
