"""A batch of images and captions that objectives of alignment share: what it can be asked, and in what order is free.

Every text-reading connector gives its own `Reading`, which computes each pass once, when it is first asked for.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from isthmus.features import Text

Vectors = Literal["queries", "features", "sum"]
"""What stands for an image: the queries' outputs, the encoder's features pooled, or the sum of both."""


Part = Literal["contrast", "match", "write"]


@runtime_checkable
class Reading(Protocol):
    """Images and captions of one batch, row by row."""

    def expect(self, part: Part, text: Text | None = None) -> None:
        """Say before anything is asked that a part will be, for match with its pairs' text (one row an image, or more).

        A connector that reads all parts in one pass then needs one pass; others pay no heed.
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
