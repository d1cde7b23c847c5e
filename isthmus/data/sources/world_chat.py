"""The exact world as a source: one scene, one conversation of several questions; or one scene, one description."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.wordings import DESCRIBE
from isthmus.data.sources.world import (
    FAMILIES,
    DescribeStyle,
    Priors,
    Question,
    Scene,
    Split,
    WorldStyle,
    ask,
    describe,
    make_scene,
)

_KEPT = 2_048
_TRIES = 500


class _Made:
    """Samples made when they are asked for; the latest are kept."""

    def __init__(self, num_samples: int, make: Callable[[int], Sample]) -> None:
        self._num_samples = num_samples
        self._make = lru_cache(maxsize=_KEPT)(make)

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: int) -> Sample:
        return self._make(checked(index, self._num_samples))


def _scene_seed(seed: int, index: int, attempt: int) -> int:
    assert 0 <= index < 2**32
    return (seed << 44) + (attempt << 32) + index


def _need_scenes(name: str, num_scenes: int, size: int) -> None:
    if num_scenes < 1 or size < 32:
        raise ValueError(f"{name} needs 1 scene and 32 pixels at least, got num_scenes={num_scenes} and size={size}.")


@dataclass(frozen=True, kw_only=True)
class WorldChat(SourceConfig):
    """One conversation a scene: up to `questions` questions of the chosen families, taken in turn.

    The first user turn begins with the image. With `caption` a last turn asks for a description; it comes last so that
    no answer can be read off it.
    """

    split: Split = "train"
    num_scenes: int = 4_000
    seed: int = 0
    """Other seeds give other scenes of the same split."""
    families: tuple[str, ...] = FAMILIES
    questions: int = 8
    caption: bool = False
    priors: Priors = "even"
    """"skewed" gives objects their own share of yes, for studies of hallucination."""
    style: WorldStyle = field(default_factory=WorldStyle)
    size: int = 96
    """Side of the rendered picture, in pixels."""

    def __post_init__(self) -> None:
        _need_scenes("WorldChat", self.num_scenes, self.size)
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or not self.families or self.questions < 1:
            raise ValueError(
                f"WorldChat asks 1 question or more of some of the families {FAMILIES}, "
                f"got questions={self.questions} and families={self.families}."
            )

    def build(self) -> Dataset:
        """The conversations."""
        return _Made(self.num_scenes, self._sample)

    def _sample(self, index: int) -> Sample:
        rng = random.Random(f"chat {self.split} {self.seed} {index}")
        scene, asked = self._asked(index, rng)
        turns: list[Turn] = []
        for question in asked:
            turns += [Turn(role="user", text=question.text), Turn(role="assistant", text=question.answer)]
        if self.caption:
            turns += [Turn(role="user", text=DESCRIBE), Turn(role="assistant", text=describe(scene, rng))]
        turns[0] = replace(turns[0], text=f"{IMAGE_MARK}\n{turns[0].text}")
        families = [question.family for question in asked] + ["describe"] * self.caption
        return Sample(
            id=f"world/{self.split}/{self.seed}/{index}",
            turns=tuple(turns),
            images=(SceneImage(scene=scene, size=self.size),),
            meta={"families": tuple(families)},
        )

    def _asked(self, index: int, rng: random.Random) -> tuple[Scene, list[Question]]:
        for attempt in range(_TRIES):
            scene = make_scene(_scene_seed(self.seed, index, attempt), self.split, self.style)
            asked = ask(scene, rng, self.families, self.questions, self.priors)
            if asked:
                return scene, asked
        raise ValueError(
            f"No scene in {_TRIES} of this style offers a question of the families {self.families}. "
            f"Reading needs WorldStyle(writing=...) above zero, chart needs WorldStyle(chart=...) above zero."
        )


@dataclass(frozen=True, kw_only=True)
class WorldCaptions(SourceConfig):
    """One description a scene."""

    split: Split = "train"
    num_scenes: int = 4_000
    seed: int = 0
    question: str = DESCRIBE
    """What the user says after the image; may be empty."""
    manners: tuple[DescribeStyle, ...] = ("prose",)
    """Styles of description to choose from."""
    style: WorldStyle = field(default_factory=WorldStyle)
    size: int = 96

    def __post_init__(self) -> None:
        _need_scenes("WorldCaptions", self.num_scenes, self.size)
        if not self.manners:
            raise ValueError("WorldCaptions needs one manner at least, such as 'prose'.")

    def build(self) -> Dataset:
        """The descriptions."""
        return _Made(self.num_scenes, self._sample)

    def _sample(self, index: int) -> Sample:
        rng = random.Random(f"captions {self.split} {self.seed} {index}")
        scene = make_scene(_scene_seed(self.seed, index, 0), self.split, self.style)
        text = describe(scene, rng, rng.choice(self.manners))
        asked = f"{IMAGE_MARK}\n{self.question}" if self.question else IMAGE_MARK
        return Sample(
            id=f"world-caption/{self.split}/{self.seed}/{index}",
            turns=(Turn(role="user", text=asked), Turn(role="assistant", text=text)),
            images=(SceneImage(scene=scene, size=self.size),),
            meta={"families": ("describe",)},
        )


def questions(
    family: str,
    num: int,
    *,
    split: Split = "test",
    seed: int = 0,
    per_scene: int = 2,
    style: WorldStyle | None = None,
    priors: Priors = "even",
    size: int = 96,
) -> list[Sample]:
    """`num` held-out questions of one family, over distinct scenes, `per_scene` at most from each.

    Without a style, scenes are the usual ones, and for reading and chart the usual ones with a writing or a chart.
    `meta` carries family, answers, choices, chance, metric, group (the scene) and detail.

    Raises:
        ValueError: an unknown family, or a style whose scenes offer too few such questions.
    """
    if style is None:
        styles = {"reading": WorldStyle(writing=1.0, chart=0.0), "chart": WorldStyle(writing=0.0, chart=1.0)}
        style = styles.get(family, WorldStyle())
    found: list[Sample] = []
    number = empty = 0
    while len(found) < num:
        scene = make_scene(_scene_seed(seed, number, 0), split, style)
        group = f"world/{split}/{seed}/{number}"
        asked = ask(scene, random.Random(f"held out {family} {group}"), (family,), per_scene, priors)
        image = SceneImage(scene=scene, size=size)
        found += [
            _held_out(question, image, f"{group}/{family}/{place}", group) for place, question in enumerate(asked)
        ]
        empty = 0 if asked else empty + 1
        if empty == _TRIES:
            raise ValueError(f"No {family!r} question in {_TRIES} scenes on end: the style shows nothing to ask about.")
        number += 1
    return found[:num]


def _held_out(question: Question, image: SceneImage, name: str, group: str) -> Sample:
    return Sample(
        id=name,
        turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question.text}"),),
        images=(image,),
        meta={
            "family": question.family,
            "answers": (question.answer,),
            "choices": question.choices,
            "chance": question.chance,
            "metric": "exact",
            "group": group,
            "detail": question.detail,
        },
    )
