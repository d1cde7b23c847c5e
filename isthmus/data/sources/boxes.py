"""Exact questions about NLVR's three boxes, from their object lists; and the boxes in words."""

import random
from collections.abc import Callable
from dataclasses import dataclass

COLOURS = ("yellow", "black", "blue")
SHAPES = ("square", "circle", "triangle")
SIZES = ("small", "medium", "large")
BOXES = ("left", "middle", "right")
COUNTS = ("0", "1", "2", "3", "4", "5", "6")
YES_NO = ("yes", "no")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One object: its place in its box of 100 x 100 (left upper corner, y downwards), and its side (10, 20 or 30)."""

    x: int
    y: int
    shape: str
    colour: str
    side: int

    @property
    def size(self) -> str:
        """small, medium or large."""
        return SIZES[self.side // 10 - 1]


Boxes = tuple[tuple[Thing, ...], ...]
Asked = tuple[str, str, tuple[str, ...]]
"""A question, its answer, and all answers it could have."""


def say_boxes(boxes: Boxes) -> str:
    """The boxes in words: all that `ask_boxes` asks about, from left to right."""
    parts = []
    for name, box in zip(BOXES, boxes, strict=True):
        things = ", ".join(f"{thing.size} {thing.colour} {thing.shape}" for thing in box)
        parts.append(f"{name} box: {things or 'nothing'}")
    return "; ".join(parts) + "."


def ask_boxes(boxes: Boxes, rng: random.Random, count: int) -> list[Asked]:
    """Up to `count` different questions on counts, existence and colours, their answers drawn first for balance."""
    askers: list[Callable[[Boxes, random.Random], Asked | None]] = [_ask_count, _ask_existence, _ask_colour]
    rng.shuffle(askers)
    found: dict[str, Asked] = {}
    for attempt in range(12 * count):
        asked = askers[attempt % len(askers)](boxes, rng)
        if asked is not None:
            found.setdefault(asked[0], asked)
        if len(found) == count:
            break
    return list(found.values())


def _ask_count(boxes: Boxes, rng: random.Random) -> Asked | None:
    """How many things of a colour, a shape or both there are, in all or in one box: 0 to 6."""
    wanted = rng.choice(COUNTS)
    kinds = [(colour, shape) for colour in ("", *COLOURS) for shape in ("object", *SHAPES)]
    places = [(name, box) for name, box in zip(BOXES, boxes, strict=True)]
    places.append(("", tuple(thing for box in boxes for thing in box)))
    fitting = [
        (colour, shape, name)
        for colour, shape in kinds
        for name, things in places
        if str(_number(things, colour, shape)) == wanted
    ]
    if not fitting:
        return None
    colour, shape, name = rng.choice(fitting)
    what = f"{colour} {shape}s".strip()
    where = f" in the {name} box" if name else ""
    return f"How many {what} are there{where}?", wanted, COUNTS


def _ask_existence(boxes: Boxes, rng: random.Random) -> Asked | None:
    """Whether a box (or any) holds a thing of a colour and a shape: yes as often as no."""
    wanted = rng.random() < 0.5
    places = [(name, box) for name, box in zip(BOXES, boxes, strict=True)]
    places.append(("", tuple(thing for box in boxes for thing in box)))
    fitting = [
        (colour, shape, name)
        for colour in COLOURS
        for shape in ("object", *SHAPES)
        for name, things in places
        if (_number(things, colour, shape) > 0) == wanted
    ]
    if not fitting:
        return None
    colour, shape, name = rng.choice(fitting)
    where = f" in the {name} box" if name else ""
    return f"Is there a {colour} {shape}{where}?", YES_NO[0 if wanted else 1], YES_NO


def _ask_colour(boxes: Boxes, rng: random.Random) -> Asked | None:
    """The colour of a box's only object of a shape."""
    fitting: list[tuple[str, str]] = []
    for name, box in zip(BOXES, boxes, strict=True):
        for shape in SHAPES:
            same = [thing for thing in box if thing.shape == shape]
            if len(same) == 1:
                fitting.append((f"What colour is the {shape} in the {name} box?", same[0].colour))
    wanted = rng.choice(COLOURS)
    fitting = [asked for asked in fitting if asked[1] == wanted]
    if not fitting:
        return None
    text, answer = rng.choice(fitting)
    return text, answer, COLOURS


def _number(things: tuple[Thing, ...], colour: str, shape: str) -> int:
    return sum(colour in ("", thing.colour) and shape in ("object", thing.shape) for thing in things)
