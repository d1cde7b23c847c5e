"""The exact world's boxes as a source: where a named thing is, and what is in a box, in Qwen-VL's format."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from isthmus.data.boxes import STEPS, format_box
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import COLOURS, SHAPES, SIZES, Item, Scene, Split, WorldStyle, make_scene
from isthmus.data.sources.world.questions.question import names_of
from isthmus.data.sources.world_chat import _Made, _need_scenes, _scene_seed

Direction = Literal["find", "name", "both"]
ANSWER_TOKENS = 40
"""Enough for a box, a token a digit."""
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class WorldBoxes(SourceConfig):
    """One conversation a scene about up to `questions` of its things, each asked about once.

    "find" asks for the box of a phrase that fits one thing alone, "name" for size, colour and shape of what is in a
    box, "both" draws one of the two for each thing. Every scene holds a thing.
    """

    split: Split = "train"
    num_scenes: int = 4_000
    seed: int = 0
    """Other seeds give other scenes of the same split."""
    questions: int = 4
    direction: Direction = "both"
    step: int = 1
    """Corners are rounded to multiples of this many thousandths of a side: fewer numbers for a small model to learn."""
    style: WorldStyle = field(default_factory=WorldStyle)
    size: int = 96
    """Side of the rendered picture, in pixels."""

    def __post_init__(self) -> None:
        _need_scenes("WorldBoxes", self.num_scenes, self.size)
        if self.questions < 1:
            raise ValueError(f"WorldBoxes asks 1 question or more a scene, got questions={self.questions}.")
        if not 1 <= self.step <= 100:
            raise ValueError(f"WorldBoxes rounds corners to 1 to 100 thousandths of a side, got step={self.step}.")

    def build(self) -> Dataset:
        """The conversations."""
        return _Made(self.num_scenes, self._sample)

    def _sample(self, index: int) -> Sample:
        rng = random.Random(f"boxes {self.split} {self.seed} {index}")
        scene, asked = _scene_with_boxes(self.seed, index, self.split, self.style, rng)
        turns: list[Turn] = []
        for item, phrase in asked[: self.questions]:
            finds = self.direction == "find" or (self.direction == "both" and rng.random() < 0.5)
            question, answer = _find(item, phrase, self.step) if finds else _name(item, self.step)
            turns += [Turn(role="user", text=question), Turn(role="assistant", text=answer)]
        turns[0] = replace(turns[0], text=f"{IMAGE_MARK}\n{turns[0].text}")
        return Sample(
            id=f"world-boxes/{self.split}/{self.seed}/{index}",
            turns=tuple(turns),
            images=(SceneImage(scene=scene, size=self.size),),
            meta={"families": ("grounding",)},
        )


def grounding_items(num: int, *, split: Split = "test", seed: int = 0, size: int = 96) -> list[Sample]:
    """`num` held-out phrases over as many scenes; the answer is the box of the one thing that fits."""
    found: list[Sample] = []
    for group, scene, item, phrase in _held_out(num, split, seed):
        question, answer = _find(item, phrase)
        meta = {"family": "grounding", "chance": 0.0, "metric": "box", "answer_tokens": ANSWER_TOKENS}
        found.append(_asked(group, scene, size, question, {**meta, "answers": (answer,)}))
    return found


def boxed_items(num: int, *, split: Split = "test", seed: int = 0, size: int = 96, step: int = 50) -> list[Sample]:
    """`num` held-out boxes over as many scenes, their corners rounded; the answer is what is in the box."""
    found: list[Sample] = []
    for group, scene, item, _ in _held_out(num, split, seed):
        question, answer = _name(item, step)
        meta = {"family": "in a box", "chance": 1 / (len(SIZES) * len(COLOURS) * len(SHAPES)), "metric": "exact"}
        found.append(_asked(f"{group}/box", scene, size, question, {**meta, "answers": (answer,)}))
    return found


def _held_out(num: int, split: Split, seed: int) -> Iterator[tuple[str, Scene, Item, str]]:
    for index in range(num):
        group = f"world-boxes/{split}/{seed}/held-out/{index}"
        scene, asked = _scene_with_boxes(seed + 1, index, split, WorldStyle(), random.Random(group))
        yield group, scene, *asked[0]


def _asked(group: str, scene: Scene, size: int, question: str, meta: dict[str, Any]) -> Sample:
    return Sample(
        id=group,
        turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),),
        images=(SceneImage(scene=scene, size=size),),
        meta={**meta, "group": group},
    )


def _scene_with_boxes(
    seed: int, index: int, split: Split, style: WorldStyle, rng: random.Random
) -> tuple[Scene, list[tuple[Item, str]]]:
    """The first scene of this number with things that a phrase singles out, and those things in random order."""
    for attempt in range(_TRIES):
        scene = make_scene(_scene_seed(seed, index, attempt), split, style)
        named = [(item, rng.choice(names)) for item in scene.items if (names := names_of(scene, item))]
        if named:
            rng.shuffle(named)
            return scene, named
    raise ValueError(f"No scene in {_TRIES} of this style holds a thing that can be told from the others: {style}.")


def _find(item: Item, phrase: str, step: int = 1) -> tuple[str, str]:
    return f"<ref>{phrase}</ref>", _written(item, step)


def _name(item: Item, step: int = 1) -> tuple[str, str]:
    return f"What is <ref>this</ref>{_written(item, step)}?", f"{item.size} {item.colour} {item.shape}"


def _written(item: Item, step: int) -> str:
    """The thing's box; rounded corners are multiples of `step`, and the far edge is the last number there is."""
    if step == 1:
        return format_box(item.box)
    left, top, right, bottom = ((round(side * STEPS / step) * step + 0.5) / STEPS for side in item.box)
    return format_box((left, top, min(1.0, right), min(1.0, bottom)))
