"""One thing of the exact world that moves: which way, is in the order of the frames and in none of them alone.

The picture has no edge for what moves: a thing that leaves on one side comes in on the other, so where it is says
nothing about where it goes. Every frame alone is as likely under each answer, the first one too (chance 1/4); all
frames in an unknown order tell across from up and down, and no more (1/2).
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from isthmus.data.images import content_key
from isthmus.data.sample import VIDEO_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import RGB, Background, Box, Item, Scene, Split
from isthmus.data.sources.world.backgrounds import draw_background
from isthmus.data.sources.world.plan import ALLOWED
from isthmus.features import Clip

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Every answer, and the step across and down."""
FRAMES = 4
SIDE = (0.2, 0.32)
STEP = (0.1, 0.2)
"""Least and largest side of the thing, and how far it goes from one frame to the next, as shares of the picture."""
Shown = Literal["moving", "shuffled", "still"]
"""The frames in their order, in a drawn one, or the first again and again: the last two are controls."""


@dataclass(frozen=True, kw_only=True)
class MovingClip:
    """Frames of a thing on its way: `start` is its upper left corner in the first, in shares of the picture."""

    colour: str
    shape: str
    direction: str
    start: tuple[float, float]
    step: float
    side: float
    background: Background
    order: tuple[int, ...] = tuple(range(FRAMES))
    """Which frame is shown first, second and so on."""
    size: int = 96
    """Side of the frames, in pixels."""

    @cached_property
    def key(self) -> str:
        """The hash of the frames' keys."""
        return content_key(" ".join(frame.key for frame in self._frames()).encode())

    def load(self) -> Clip:
        """The frames, a quarter of a second apart."""
        drawn = tuple(frame.load() for frame in self._frames())
        return Clip(frames=drawn, times_s=tuple(0.25 * number for number in range(len(drawn))))

    def _frames(self) -> list[SceneImage]:
        return [SceneImage(scene=self._scene(number), size=self.size) for number in self.order]

    def _scene(self, number: int) -> Scene:
        across, down = DIRECTIONS[self.direction]
        x = (self.start[0] + across * number * self.step) % 1.0
        y = (self.start[1] + down * number * self.step) % 1.0
        return Scene(
            seed=0,
            split="train",
            background=self.background,
            items=tuple(self._item(box) for box in _everywhere(x, y, self.side)),
            writings=(),
            chart=None,
            distractors=(),
        )

    def _item(self, box: Box) -> Item:
        return Item(shape=self.shape, colour=self.colour, size="large", cell=0, box=box, rgb=RGB[self.colour])


def _everywhere(x: float, y: float, side: float) -> list[Box]:
    """The thing, and what of it comes in again on the other sides."""
    return [
        (x - right, y - low, x - right + side, y - low + side)
        for right in (0, 1)
        for low in (0, 1)
        if x - right + side > 0.0 and y - low + side > 0.0
    ]


def moving_clip(seed: str, shown: Shown = "moving", *, size: int = 96) -> MovingClip:
    """The clip of this seed."""
    rng = random.Random(f"moving thing {seed}")
    colour, shape = rng.choice(ALLOWED)
    return MovingClip(
        colour=colour,
        shape=shape,
        direction=rng.choice(tuple(DIRECTIONS)),
        start=(rng.random(), rng.random()),
        step=rng.uniform(*STEP),
        side=rng.uniform(*SIDE),
        background=draw_background(rng),
        order={
            "moving": tuple(range(FRAMES)),
            "shuffled": tuple(rng.sample(range(FRAMES), FRAMES)),
            "still": (0,) * FRAMES,
        }[shown],
        size=size,
    )


@dataclass(frozen=True, kw_only=True)
class MovingThings(SourceConfig):
    """One clip of a moving thing, and the question which way it moves."""

    num: int = 1_000
    split: Split = "train"
    seed: int = 0
    """Other seeds draw other clips."""
    size: int = 96
    """Side of the frames, in pixels."""

    def __post_init__(self) -> None:
        if self.num < 1 or self.size < 32:
            raise ValueError(f"MovingThings needs 1 clip and 32 pixels at least, got num={self.num}, size={self.size}.")

    def build(self) -> Dataset:
        """The questions."""
        return _Asked(self)


class _Asked:
    def __init__(self, config: MovingThings) -> None:
        self._config = config

    def __len__(self) -> int:
        return self._config.num

    def __getitem__(self, index: int) -> Sample:
        config = self._config
        name = f"{config.split} {config.seed} {checked(index, len(self))}"
        clip = moving_clip(name, size=config.size)
        return _sample(name, clip)


def _sample(name: str, clip: MovingClip) -> Sample:
    asked = f"{VIDEO_MARK}\nWhich way does the {clip.colour} {clip.shape} move?"
    turns = (Turn(role="user", text=asked), Turn(role="assistant", text=clip.direction))
    return Sample(id=f"moving/{name}", turns=turns, videos=(clip,))


def questions(num: int, *, split: Split = "test", seed: int = 0, shown: Shown = "moving") -> list[Sample]:
    """`num` questions which way a thing moves."""
    found: list[Sample] = []
    for number in range(num):
        name = f"{split} {seed} {number}"
        clip = moving_clip(name, shown)
        made = _sample(name, clip)
        meta = {
            "family": "moving things",
            "answers": (clip.direction,),
            "choices": tuple(DIRECTIONS),
            "chance": 0.25,
            "metric": "exact",
            "group": made.id,
        }
        found.append(Sample(id=made.id, turns=made.turns[:1], videos=made.videos, meta=meta))
    return found
