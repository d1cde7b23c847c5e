"""Small things as a source: one scene, one conversation about numbers and shapes whose height in pixels is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.small_scenes import TALLEST, small_scene, tile_of, tiles_of
from isthmus.data.sources.world import CELLS, COLOURS, SHAPES, Item, Question, Scene, Split
from isthmus.data.sources.world.questions.question import question
from isthmus.data.sources.world.style import REFERENCE_PX
from isthmus.data.sources.world_chat import _held_out, _Made, _need_scenes

HEIGHTS = (5.0, 7.0, 10.0, 14.0, 20.0)
"""Heights of things, in pixels of a 96 px picture; a tile of a 2 x 2 cut shows them twice as high."""
LARGE = (14.0, 20.0, 26.0)
"""Heights at which what a thing is can be seen anywhere, so that where it lies decides."""
SMALL_FAMILIES = ("digit", "shape", "colour", "place", "side")
DIGITS = tuple("0123456789")
_SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


@dataclass(frozen=True, kw_only=True)
class SmallThings(SourceConfig):
    """Up to `questions` questions about one scene, the families taken in turn, all different.

    "digit": the number that is written; "shape", "colour": of a thing named by the other; "place": the cell of a thing;
    "side": whether one thing lies to one side of another, yes or no, where their cells differ in that direction.
    """

    split: Split = "train"
    num_scenes: int = 1_280
    seed: int = 0
    """Other seeds give other scenes of the same split."""
    families: tuple[str, ...] = ("digit", "shape", "colour", "place")
    questions: int = 8
    items: int = 4
    """Things in a scene, no colour and no shape twice."""
    numbers: int = 1
    """Numbers of one digit in a scene; with several, each is asked for by its place."""
    heights: tuple[float, ...] = HEIGHTS
    """Drawn for each thing and number, in pixels of a 96 px picture."""
    size: int = 192
    """Side of the rendered picture, in pixels."""

    def __post_init__(self) -> None:
        _need_scenes("SmallThings", self.num_scenes, self.size)
        unknown = [family for family in self.families if family not in SMALL_FAMILIES]
        if unknown or not self.families or self.questions < 1:
            raise ValueError(
                f"SmallThings asks 1 question or more of some of the families {SMALL_FAMILIES}, "
                f"got questions={self.questions} and families={self.families}."
            )
        most = min(len(CELLS) - self.numbers, len(COLOURS))
        if not 2 <= self.items <= most or not 0 <= self.numbers <= 6:
            raise ValueError(
                f"SmallThings draws 2 to {most} items beside up to 6 numbers in 9 cells, got items={self.items} and "
                f"numbers={self.numbers}."
            )
        if "digit" in self.families and not self.numbers:
            raise ValueError("SmallThings(numbers=0) writes no number to ask for. Leave out the family 'digit'.")
        if not self.heights or not all(3.0 <= height <= TALLEST for height in self.heights):
            raise ValueError(
                f"SmallThings.heights are 3 to {TALLEST:.0f} pixels at a side of {REFERENCE_PX}, got {self.heights}."
            )

    def build(self) -> Dataset:
        """The conversations."""
        return _Made(self.num_scenes, self._sample)

    def scene(self, number: int) -> Scene:
        """The scene of this number."""
        return small_scene(
            f"{self.seed} {number}", self.split, items=self.items, numbers=self.numbers, heights=self.heights
        )

    def _sample(self, index: int) -> Sample:
        scene = self.scene(index)
        asked = ask_small(
            scene, random.Random(f"small {self.split} {self.seed} {index}"), self.families, self.questions
        )
        turns: list[Turn] = []
        for place, one in enumerate(asked):
            mark = f"{IMAGE_MARK}\n" if place == 0 else ""
            turns += [Turn(role="user", text=mark + one.text), Turn(role="assistant", text=one.answer)]
        return Sample(
            id=f"small/{self.split}/{self.seed}/{index}",
            turns=tuple(turns),
            images=(SceneImage(scene=scene, size=self.size),),
            meta={"families": tuple(one.family for one in asked)},
        )


def ask_small(scene: Scene, rng: random.Random, families: Sequence[str], count: int) -> list[Question]:
    """Up to `count` different questions, the families in turn; `detail` holds heights and tiles."""
    left = {family: _every(scene, family) for family in families}
    for questions in left.values():
        rng.shuffle(questions)
    order = list(families)
    rng.shuffle(order)
    found: list[Question] = []
    while len(found) < count and any(left.values()):
        for family in order:
            if left[family] and len(found) < count:
                found.append(left[family].pop())
    return found


def _every(scene: Scene, family: str) -> list[Question]:
    """All questions of one family that the scene offers."""
    if family == "digit":
        return _digits(scene)
    if family == "side":
        return [
            one
            for first in scene.items
            for second in scene.items
            if first is not second
            for one in _sides(first, second)
        ]
    made = {"shape": _shape, "colour": _colour, "place": _where}[family]
    return [made(item) for item in scene.items]


def _digits(scene: Scene) -> list[Question]:
    alone = len(scene.writings) == 1
    return [
        question(
            "digit: number",
            "What number is written?" if alone else f"What number is written at the {CELLS[one.cell]}?",
            one.text,
            DIGITS,
            {"glyph_px": round(one.glyph_height * REFERENCE_PX, 2), "tiles": tiles_of(one.box), "font": one.font},
        )
        for one in scene.writings
    ]


def _detail(item: Item) -> dict[str, str | int | float]:
    return {"item_px": round((item.box[3] - item.box[1]) * REFERENCE_PX, 2), "tiles": tiles_of(item.box)}


def _shape(item: Item) -> Question:
    return question("shape: shape", f"What shape is the {item.colour} thing?", item.shape, SHAPES, _detail(item))


def _colour(item: Item) -> Question:
    return question("colour: colour", f"What colour is the {item.shape}?", item.colour, COLOURS, _detail(item))


def _where(item: Item) -> Question:
    text = f"Where is the {item.colour} {item.shape}?"
    return question("place: cell", text, CELLS[item.cell], CELLS, _detail(item))


def _sides(first: Item, second: Item) -> list[Question]:
    """Every side on which the first lies or does not lie, where their cells differ in that direction."""
    made = []
    for words, (axis, sign) in _SIDES.items():
        here, there = ((item.cell % 3, item.cell // 3)[axis] for item in (first, second))
        if here == there:
            continue
        answer = "yes" if (here - there) * sign > 0 else "no"
        text = f"Is the {first.colour} {first.shape} {words} the {second.colour} {second.shape}?"
        apart = "one tile" if tile_of(first.box) == tile_of(second.box) else "two tiles"
        made.append(question("side: side", text, answer, ("yes", "no"), {"relation": words, "together": apart}))
    return made


def small_questions(
    family: str, num: int, *, split: Split = "test", seed: int = 0, large: bool = False
) -> list[Sample]:
    """`num` held-out questions of one family, two at most from a scene of the source's usual kind.

    `large` draws things at `LARGE` heights, without a number, so that only where they lie matters. `meta` is as in
    `world_chat.questions`.
    """
    config = SmallThings(split=split, num_scenes=num, seed=seed, families=(family,))
    if large:
        config = spanning(split, num, families=(family,), seed=seed)
    found: list[Sample] = []
    for number in range(num):
        scene = config.scene(number)
        group = f"small/{split}/{seed}/{'large/' if large else ''}{number}"
        rng = random.Random(f"held out {family} {group}")
        image = SceneImage(scene=scene, size=config.size)
        found += [
            _held_out(one, image, f"{group}/{family}/{place}", group)
            for place, one in enumerate(ask_small(scene, rng, (family,), 2))
        ]
        if len(found) >= num:
            break
    return found[:num]


def spanning(
    split: Split, num_scenes: int, *, families: tuple[str, ...], seed: int = 0, questions: int = 8
) -> SmallThings:
    """Three large things and no number: many of them lie in several tiles of a 2 x 2 cut, and most pairs in two."""
    return SmallThings(
        split=split, num_scenes=num_scenes, seed=seed, families=families, questions=questions, items=3, numbers=0,
        heights=LARGE,
    )  # fmt: skip
