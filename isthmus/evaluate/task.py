"""What a benchmark is: a name, and questions with their answers for a split."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from isthmus.data.sample import Sample

Split = Literal["train", "val", "test"]
Form = Literal["answer", "retrieval"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions of one family. `make(split, num, seed)` gives up to `num` samples, the same ones every time.

    A sample's user turns are asked; its `meta` holds `answers`, `choices` (when closed), `chance` and `metric`. In the
    form "retrieval" a description (`meta["answers"]`) has to be matched with one of `meta["candidates"]`.
    """

    name: str
    title: str
    kind: Literal["exact world", "real images", "real sounds", "real clips"]
    make: Callable[[Split, int, int], list[Sample]]
    form: Form = "answer"
    share: float = 1.0
    """The part of the asked-for number that is made, for tasks whose items take many passes of the model."""
    by: str = ""
    """The name in an item's `meta["detail"]` that a study's report breaks accuracy down by; empty for no such table."""
    by_title: str = ""
    """What that is, in words."""

    def items(self, split: Split, num: int, seed: int = 0) -> list[Sample]:
        """Up to `num` (times `share`) samples of a split, with `meta["family"]` set to the task's name.

        Raises:
            ValueError: the source has none.
        """
        items = self.make(split, max(1, round(num * self.share)), seed)
        if not items:
            raise ValueError(f"The benchmark {self.name!r} has no items in its split {split!r}.")
        return [dataclasses.replace(item, meta={**item.meta, "family": self.name}) for item in items]
