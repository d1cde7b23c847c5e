"""What a model without a language model is asked: which texts and images belong together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from isthmus.data.captions import caption_of
from isthmus.data.sample import Sample
from isthmus.data.sources import Textbook, WorldCaptions
from isthmus.data.sources.base import SourceConfig
from isthmus.data.sources.world_swaps import PLAIN, Swap, swaps
from isthmus.evaluate.task import Split

Form = Literal["gallery", "pairs"]


@dataclass(frozen=True, kw_only=True)
class AlignmentTask:
    """Samples with one image and one caption. A gallery is searched both ways; pairs have a `meta["wrong"]` beside."""

    name: str
    title: str
    kind: Literal["exact world", "real images"]
    form: Form
    make: Callable[[Split, int], list[Sample]]

    def items(self, split: Split, num: int) -> list[Sample]:
        """Up to `num` samples of a split, with `meta["family"]` the task's name and `meta["answers"]` the caption."""
        return [
            replace(item, meta={**item.meta, "family": self.name, "answers": (caption_of(item),)})
            for item in self.make(split, num)
        ]


def _first(source: Callable[[Split, int], SourceConfig]) -> Callable[[Split, int], list[Sample]]:
    def make(split: Split, num: int) -> list[Sample]:
        dataset = source(split, num).build()
        return [dataset[index] for index in range(min(num, len(dataset)))]

    return make


def _held_out_figures(split: Split, num: int) -> list[Sample]:
    """For the test, the figures of val too: the larger gallery, for runs that chose nothing by val."""
    splits: tuple[Split, ...] = ("val", "test") if split == "test" else (split,)
    parts = [Textbook(task="describe", split=one).build() for one in splits]
    return [part[index] for part in parts for index in range(len(part))][:num]


def _swaps(swap: Swap) -> Callable[[Split, int], list[Sample]]:
    def make(split: Split, num: int) -> list[Sample]:
        return swaps(swap, num, split=split)

    return make


ALIGNMENT: dict[str, AlignmentTask] = {
    task.name: task
    for task in (
        AlignmentTask(
            name="gallery/textbook",
            title="Textbook figures and their descriptions, both ways",
            kind="real images",
            form="gallery",
            make=_first(lambda split, num: Textbook(task="describe", split=split)),
        ),
        AlignmentTask(
            name="gallery/textbook-all",
            title="Textbook figures of val and test together and their descriptions, both ways",
            kind="real images",
            form="gallery",
            make=_held_out_figures,
        ),
        AlignmentTask(
            name="gallery/world",
            title="Exact scenes and their descriptions, both ways",
            kind="exact world",
            form="gallery",
            make=_first(lambda split, num: WorldCaptions(split=split, num_scenes=num, style=PLAIN)),
        ),
        AlignmentTask(
            name="swaps/exchanged",
            title="A scene's description against one where two items exchange colour, shape or size",
            kind="exact world",
            form="pairs",
            make=_swaps("exchanged"),
        ),
        AlignmentTask(
            name="swaps/replaced",
            title="A scene's description against one where an item has another colour, shape or size",
            kind="exact world",
            form="pairs",
            make=_swaps("replaced"),
        ),
    )
}
"""Every task of alignment by its exact name."""
