"""What is small, and what lies in several tiles: questions whose accuracy a study's report breaks down."""

from collections.abc import Callable

from isthmus.data.sample import Sample
from isthmus.data.sources.small_things import small_questions
from isthmus.evaluate.task import Split, Task


def _asked(family: str, *, large: bool) -> Callable[[Split, int, int], list[Sample]]:
    def make(split: Split, num: int, seed: int) -> list[Sample]:
        return small_questions(family, num, split=split, seed=seed, large=large)

    return make


def _task(name: str, title: str, family: str, by: tuple[str, str], *, large: bool = False) -> Task:
    key, words = by
    make = _asked(family, large=large)
    return Task(name=f"detail/{name}", title=title, kind="exact world", make=make, by=key, by_title=words)


_TILES = ("tiles", "tiles of a 2 x 2 cut that the thing lies in")

TASKS: tuple[Task, ...] = (
    _task("digit", "Reading a digit", "digit", ("glyph_px", "height of the digit, px of a 96 px picture")),
    _task("shape", "Shape of a small thing", "shape", ("item_px", "height of the thing, px of a 96 px picture")),
    _task("cut-shape", "Shape of a large thing", "shape", _TILES, large=True),
    _task("place", "Place of a large thing", "place", _TILES, large=True),
    _task("side", "Side of another thing", "side", ("together", "the two things have their middles in"), large=True),
)
