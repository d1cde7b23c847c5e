"""Scenes in pairs that differ in what belongs together alone: hard negatives for a comparison of images and texts.

Source: NegCLIP's composed negatives (arXiv:2210.01936, section 4: the words of a caption exchanged, and another image
that is close), on scenes with exact truth: here the exchanged text has a picture of its own.
"""

import random
from dataclasses import dataclass, field, replace

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import Scene, Split, WorldStyle, bucket, describe, make_scene
from isthmus.data.sources.world.layout import place_item
from isthmus.data.sources.world.plan import PlannedItem
from isthmus.data.sources.world_chat import _Made, _need_scenes, _scene_seed
from isthmus.data.sources.world_swaps import PLAIN, swapped

_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class WorldTwins(SourceConfig):
    """Scenes and their descriptions, two and two: in the second of a pair two things exchanged colour, shape or size.

    Both are described in the same words in another order, so a comparison whose batch holds both has to know what
    belongs to which thing. The two of a pair stand in one batch (`together`).
    """

    split: Split = "train"
    num_scenes: int = 4_000
    """Both of every pair counted."""
    seed: int = 0
    style: WorldStyle = field(default_factory=lambda: PLAIN)
    size: int = 96

    def __post_init__(self) -> None:
        _need_scenes("WorldTwins", self.num_scenes, self.size)
        if self.num_scenes % 2:
            raise ValueError(f"WorldTwins makes scenes in pairs: num_scenes must be even, got {self.num_scenes}.")
        if self.split == "test_combos":
            raise ValueError("WorldTwins has no split test_combos: exchanging would part the kinds held out for it.")
        if self.style.items[0] < 2:
            raise ValueError(
                f"In a pair of WorldTwins two things exchange an attribute: style.items must begin at 2 or more, got "
                f"{self.style.items}."
            )

    @property
    def together(self) -> int:
        """The two of a pair."""
        return 2

    def build(self) -> Dataset:
        """The scenes, pair after pair."""
        return _Made(self.num_scenes, self._sample)

    def _sample(self, index: int) -> Sample:
        pair, second = divmod(index, 2)
        group = f"world-twins/{self.split}/{self.seed}/{pair}"
        shown = self._pair(pair, group)[second]
        return Sample(
            id=f"{group}/{second}",
            turns=(
                Turn(role="user", text=IMAGE_MARK),
                Turn(role="assistant", text=describe(shown, random.Random(f"words {group}"))),
            ),
            images=(SceneImage(scene=shown, size=self.size),),
            meta={"families": ("describe",), "group": group},
        )

    def _pair(self, pair: int, group: str) -> tuple[Scene, Scene]:
        for attempt in range(_TRIES):
            scene = make_scene(_scene_seed(self.seed, pair, attempt), self.split, self.style)
            rng = random.Random(f"{group} {attempt}")
            changed = swapped(scene, rng, "exchanged")
            if changed is not None and bucket(changed[0].key()) == self.split:
                return scene, _laid_out(scene, changed[0], rng)
        raise ValueError(f"None of {_TRIES} scenes of this style has two things that differ in an attribute.")


def _laid_out(scene: Scene, changed: Scene, rng: random.Random) -> Scene:
    """`changed` as it is drawn: its changed things in a shade and a box of their new colour and size."""
    items = (
        new
        if new == old
        else place_item(PlannedItem(cell=new.cell, size=new.size, colour=new.colour, shape=new.shape), rng)
        for old, new in zip(scene.items, changed.items, strict=True)
    )
    return replace(changed, items=tuple(items))
