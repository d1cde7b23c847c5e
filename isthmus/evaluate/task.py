"""What a benchmark is: a name, and questions with their answers for a split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from isthmus.data.sample import Sample

Split = Literal["train", "val", "test"]
Form = Literal["answer", "retrieval"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions of one family. `make(split, num, seed)` gives up to `num` samples, the same ones every time.

    A sample's user turns are asked; its `meta` holds `answers`, `choices` (when closed), `chance` and `family`.
    In the form "retrieval" a sample's assistant turn describes its image, which has to be found among others.
    """

    name: str
    title: str
    kind: Literal["exact world", "real images"]
    make: Callable[[Split, int, int], list[Sample]]
    form: Form = "answer"

    def items(self, split: Split, num: int, seed: int = 0) -> list[Sample]:
        """Up to `num` samples of a split. Raises ValueError when the source has none."""
        items = self.make(split, num, seed)
        if not items:
            raise ValueError(f"The benchmark {self.name!r} has no items in its split {split!r}.")
        return items
