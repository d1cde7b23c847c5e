"""Two descriptions of one scene in the same words, one of them wrong: attributes exchanged between items, or replaced.

Source: the swapped and replaced attributes of SugarCrepe (arXiv:2306.14610), on scenes with exact truth.
"""

import random
from dataclasses import replace
from itertools import combinations
from typing import Literal, get_args

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Item,
    Scene,
    Split,
    WorldStyle,
    describe,
    make_scene,
)

Swap = Literal["exchanged", "replaced"]
ATTRIBUTES = ("colour", "shape", "size")
PLAIN = WorldStyle(items=(2, 4), writing=0.0, chart=0.0)
"""Two to four items and nothing else, so that the whole description is read."""
_VALUES = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}


def swapped(scene: Scene, rng: random.Random, swap: Swap) -> tuple[Scene, str] | None:
    """The scene with one attribute wrong, and which; `None` where the items offer no such change.

    "exchanged": two items exchange their colour, shape or size, so the words stay the same and only what belongs
    together differs. "replaced": one item gets another value. Neither makes a pair of colour and shape that the scenes
    of training never show, which would be known as wrong without looking.
    """
    for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
        for first, second in rng.sample(pairs := list(combinations(range(len(scene.items)), 2)), len(pairs)):
            one, other = getattr(scene.items[first], attribute), getattr(scene.items[second], attribute)
            items = list(scene.items)
            if swap == "exchanged":
                if one == other:
                    continue
                items[first], items[second] = (
                    _with(items[first], attribute, other),
                    _with(items[second], attribute, one),
                )
            else:
                value = rng.choice([value for value in _VALUES[attribute] if value != one])
                items[first] = _with(items[first], attribute, value)
            changed = replace(scene, items=tuple(items))
            unseen = any((item.colour, item.shape) in HELD_OUT for item in items)
            if changed.key() != scene.key() and not unseen:
                return changed, attribute
    return None


def _with(item: Item, attribute: str, value: str) -> Item:
    match attribute:
        case "colour":
            return replace(item, colour=value)
        case "shape":
            return replace(item, shape=value)
    return replace(item, size=value)


def swaps(
    swap: Swap, num: int, *, split: Split = "test", seed: int = 0, style: WorldStyle = PLAIN, size: int = 96
) -> list[Sample]:
    """`num` scenes, each with its description and, in `meta["wrong"]`, the same sentences with an attribute wrong.

    `meta["detail"]` says which attribute.

    Raises:
        ValueError: an unknown swap, or a style that offers no two items.
    """
    if swap not in get_args(Swap) or style.items[0] < 2:
        raise ValueError(f"Swaps are {get_args(Swap)} over scenes of 2 items or more, got {swap!r} and {style.items}.")
    found: list[Sample] = []
    number = 0
    while len(found) < num:
        scene = make_scene((seed << 44) + number, split, style)
        group = f"world/{split}/{seed}/{number}"
        changed = swapped(scene, random.Random(f"swap {swap} {group}"), swap)
        if changed is not None:
            wrong, attribute = changed
            told, false = (describe(one, random.Random(f"words {group}")) for one in (scene, wrong))
            found.append(
                Sample(
                    id=f"{group}/{swap}",
                    turns=(Turn(role="user", text=IMAGE_MARK), Turn(role="assistant", text=told)),
                    images=(SceneImage(scene=scene, size=size),),
                    meta={"wrong": false, "group": group, "chance": 0.5, "detail": {"attribute": attribute}},
                )
            )
        number += 1
    return found
