"""Draw scenes: a deterministic function of (seed, split, style), with splits that cannot share a scene."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from functools import lru_cache
from typing import Literal, get_args

from isthmus.data.sources.world.layout import lay_out, place_item
from isthmus.data.sources.world.plan import PlannedItem, plan_scene
from isthmus.data.sources.world.scene import COLOURS, HELD_OUT, SHAPES, SIZES, SPLITS, Scene, Split
from isthmus.data.sources.world.style import WorldStyle

USUAL = WorldStyle()
_TRIES = 2_000
Change = Literal["shape", "colour", "size", "cell"]


def bucket(key: str) -> Split:
    """The split that owns this content: eight tenths are train, one tenth val, one tenth test."""
    share = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


@lru_cache(maxsize=64)
def _style_text(style: WorldStyle) -> str:
    return repr(style)


def _generator(*parts: object) -> random.Random:
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def make_scene(seed: int, split: Split, style: WorldStyle = USUAL) -> Scene:
    """The scene of this seed.

    A scene's content (`Scene.key()`) belongs to one of train, val and test by its hash; content of another split is
    drawn again. The pairs of `HELD_OUT` occur in `test_combos` alone, at least one in every scene of it.

    Raises:
        ValueError: an unknown split, or a style so narrow that no scene of this split exists.
    """
    if split not in SPLITS:
        raise ValueError(f"A split is one of {SPLITS}, got {split!r}.")
    needs_held_out = split == "test_combos"
    rng = _generator("isthmus world 1", seed, split, _style_text(style))
    for _ in range(_TRIES):
        plan = plan_scene(rng, style, needs_held_out=needs_held_out)
        if needs_held_out or bucket(plan.key()) == split:
            return lay_out(plan, rng, style, seed=seed, split=split)
    raise ValueError(
        f"No scene of split {split!r} in {_TRIES} draws: this style has too few different scenes ({style}). "
        f"Allow more items, writings or charts."
    )


def twin(scene: Scene, rng: random.Random, change: Change) -> Scene | None:
    """The same picture with one thing changed in one item: a hard negative, in the same split.

    Returns None where the scene offers no such change (no items, or no free cell).

    Raises:
        ValueError: a change that is not one of shape, colour, size and cell.
    """
    if change not in get_args(Change):
        raise ValueError(f"A change is one of {get_args(Change)}, got {change!r}.")
    if not scene.items:
        return None
    for place in rng.sample(range(len(scene.items)), len(scene.items)):
        for planned in _changes(scene, place, change, rng):
            others = scene.items[:place] + scene.items[place + 1 :]
            items = sorted((*others, place_item(planned, rng)), key=lambda item: item.cell)
            changed = replace(scene, items=tuple(items))
            if _belongs(changed):
                return changed
    return None


def _changes(scene: Scene, place: int, change: Change, rng: random.Random) -> list[PlannedItem]:
    """Every other value of one property of one item, in random order."""
    item = scene.items[place]
    planned = PlannedItem(cell=item.cell, size=item.size, colour=item.colour, shape=item.shape)
    changed: list[PlannedItem]
    if change == "cell":
        taken = {other.cell for other in scene.items} | {cell for writing in scene.writings for cell in writing.cells}
        taken |= set(() if scene.chart is None else scene.chart.cells)
        changed = [replace(planned, cell=cell) for cell in range(9) if cell not in taken]
    elif change == "shape":
        changed = [replace(planned, shape=shape) for shape in SHAPES if shape != item.shape]
    elif change == "colour":
        changed = [replace(planned, colour=colour) for colour in COLOURS if colour != item.colour]
    else:
        changed = [replace(planned, size=size) for size in SIZES if size != item.size]
    rng.shuffle(changed)
    return changed


def _belongs(scene: Scene) -> bool:
    held_out = any((item.colour, item.shape) in HELD_OUT for item in scene.items)
    if scene.split == "test_combos":
        return held_out
    return not held_out and bucket(scene.key()) == scene.split
