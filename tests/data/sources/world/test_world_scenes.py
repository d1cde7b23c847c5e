"""The exact world's scenes: determined by their seed, disjoint between splits, held-out pairs kept apart."""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter

import pytest

from isthmus.data.sources.world import (
    CELLS,
    COLOURS,
    COMPANIONS,
    HELD_OUT,
    SHAPES,
    SIZES,
    SPLITS,
    Box,
    Scene,
    WorldStyle,
    bucket,
    describe,
    make_scene,
    regions,
    twin,
)

BUSY = WorldStyle(chart=0.25, writing=0.4)
SPARSE = WorldStyle(items=(1, 1), writing=0.0, chart=0.0)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    assert make_scene(3, "train", BUSY) == make_scene(3, "train", BUSY)
    keys = {make_scene(seed, "train").key() for seed in range(50)}
    assert len(keys) > 40
    assert make_scene(3, "train") != make_scene(3, "test")


def test_a_scene_written_down_stays_as_it_is() -> None:
    assert (
        make_scene(1, "train").key()
        == "1:large pink cross; 2:large pink circle; 3:large pink triangle; 8:small pink heart"
    )
    assert (
        make_scene(8, "test", BUSY).key()
        == "0:large orange diamond; 1:small brown square; 2:large blue cross; line@3,4,5,6,7,8:pink=1,3,4,6,7,9"
    )


@pytest.mark.parametrize("style", [WorldStyle(), SPARSE], ids=["usual", "sparse"])
def test_no_scene_of_one_split_appears_in_another(style: WorldStyle) -> None:
    keys = {split: {make_scene(seed, split, style).key() for seed in range(750)} for split in SPLITS}
    if style == SPARSE:
        assert len(keys["train"]) < 600  # so few scenes exist that seeds repeat them, and still none crosses over
    for split in SPLITS:
        others = set().union(*(keys[other] for other in SPLITS if other != split))
        assert not keys[split] & others
        if split != "test_combos":
            assert {bucket(key) for key in keys[split]} == {split}


def test_held_out_pairs_occur_in_their_own_split_alone_and_in_every_scene_of_it() -> None:
    assert Counter(colour for colour, _ in HELD_OUT) == Counter(COLOURS)
    assert Counter(shape for _, shape in HELD_OUT) == Counter(SHAPES)
    for split in SPLITS:
        for seed in range(300):
            pairs = {(item.colour, item.shape) for item in make_scene(seed, split, BUSY).items}
            assert bool(pairs & HELD_OUT) == (split == "test_combos")


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def test_everything_stands_in_its_own_cell_and_nothing_overlaps() -> None:
    for seed in range(400):
        scene = make_scene(seed, "train", BUSY)
        assert len(scene.items) <= 6
        for item in scene.items:
            x0, y0, x1, y1 = item.box
            assert (int(3 * y0), int(3 * x0)) == divmod(item.cell, 3)
            assert (int(3 * y1 - 1e-6), int(3 * x1 - 1e-6)) == divmod(item.cell, 3)
            assert (0.2 <= x1 - x0 <= 0.22) if item.size == "small" else (0.3 <= x1 - x0 <= 0.32)
        for writing in scene.writings:
            x0, y0, x1, y1 = writing.box
            assert x0 >= 0
            assert x1 <= 1
            assert (int(3 * (y0 + y1) / 2), int(3 * (x0 + x1) / 2)) == divmod(writing.cell, 3)
        boxes = [thing.box for thing in (*scene.items, *scene.writings, *([scene.chart] if scene.chart else []))]
        assert not any(_overlap(boxes[i], boxes[j]) for i in range(len(boxes)) for j in range(i))


def test_items_are_evenly_spread_over_colours_shapes_sizes_and_cells() -> None:
    items = [item for seed in range(1_500) for item in make_scene(seed, "train").items]
    for values, names in ((COLOURS, "colour"), (SHAPES, "shape"), (SIZES, "size"), (range(9), "cell")):
        counted = Counter(getattr(item, names) for item in items)
        for value in values:
            assert counted[value] == pytest.approx(len(items) / len(values), rel=0.15)


def test_companions_come_along_when_asked_for() -> None:
    def together(style: WorldStyle) -> int:
        scenes = (make_scene(seed, "train", style) for seed in range(200))
        pairs = [{(item.colour, item.shape) for item in scene.items} for scene in scenes]
        return sum(any(COMPANIONS[kind] in there for kind in there) for there in pairs)

    assert together(WorldStyle(companions=0.9)) > 100 > 40 > together(WorldStyle())


@pytest.mark.parametrize("change", ["shape", "colour", "size", "cell"])
def test_a_twin_differs_in_one_thing_and_stays_in_its_split(change: str) -> None:
    changed = 0
    for seed in range(60):
        for split in SPLITS:
            scene = make_scene(seed, split)
            other = twin(scene, random.Random(seed), change)  # type: ignore[arg-type]
            if other is None:
                continue
            changed += 1
            ours = {(item.shape, item.colour, item.size, item.cell) for item in scene.items}
            theirs = {(item.shape, item.colour, item.size, item.cell) for item in other.items}
            (before,), (after,) = ours - theirs, theirs - ours
            place = ("shape", "colour", "size", "cell").index(change)
            assert [one == two for one, two in zip(before, after, strict=True)] == [p != place for p in range(4)]
            held_out = any((item.colour, item.shape) in HELD_OUT for item in other.items)
            assert held_out == (split == "test_combos")
            assert split == "test_combos" or bucket(other.key()) == split
    assert changed > 120


def _says(text: str, scene: Scene) -> None:
    for item in scene.items:
        assert re.search(rf"\b{item.colour}\b", text)
        assert re.search(rf"\b{item.shape}(s|es)?\b", text)
    for writing in scene.writings:
        assert f'"{writing.text}"' in text or f"number {writing.text}" in text
    if scene.chart is not None:
        for value in scene.chart.values:
            assert str(value) in text


@pytest.mark.parametrize("order", ["raster", "shuffled"])
def test_every_description_says_everything(order: str) -> None:
    for seed in range(150):
        scene = make_scene(seed, "train", BUSY)
        prose, listed, telegraph, counted = (
            describe(scene, random.Random(seed), style, order)  # type: ignore[arg-type]
            for style in ("prose", "list", "telegraph", "counted")
        )
        for text in (prose, listed, telegraph, counted):
            _says(text.lower(), scene)
        for item in scene.items:
            name, cell = f"{item.size} {item.colour} {item.shape}", CELLS[item.cell]
            place = rf"(at|in) the {cell}"
            assert re.search(rf"{name} (is )?{place}\b|{place} is an? {name}", prose.lower())
            assert f"{name}, {cell}" in listed
            assert f"{cell}: {name}" in telegraph
            assert f"{item.size} {item.colour} {place[8:]}" in counted or re.search(
                rf"{item.size} {item.colour} {place}\b", counted
            )
        assert prose[0].isupper()
        assert prose.endswith(".")


def test_regions_name_every_item_and_writing_and_stay_on_the_canvas() -> None:
    for seed in range(150):
        scene = make_scene(seed, "train", BUSY)
        named = regions(scene)
        assert named == regions(scene)
        boxes = [box for box, _ in named]
        for item in scene.items:
            phrase = named[boxes.index(item.box)][1]
            assert phrase.endswith(f"{item.colour} {item.shape}")
        for writing in scene.writings:
            assert writing.text in named[boxes.index(writing.box)][1]
        assert (scene.chart is None) == (not any("chart" in phrase or "line" in phrase for _, phrase in named))
        assert all(0 <= x0 < x1 <= 1.0001 and 0 <= y0 < y1 <= 1.0001 for x0, y0, x1, y1 in boxes)


def test_mistakes_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="A split is one of"):
        inspect.unwrap(make_scene)(0, "tests")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too few different scenes"):
        make_scene(0, "val" if bucket("") == "train" else "train", WorldStyle(items=(0, 0), writing=0.0, chart=0.0))
    with pytest.raises(ValueError, match="probability from 0 to 1"):
        WorldStyle(writing=1.5)
    with pytest.raises(ValueError, match="in order"):
        WorldStyle(items=(5, 2))
    with pytest.raises(ValueError, match="3 to 20 pixels"):
        WorldStyle(glyph_heights=(40.0,))
    with pytest.raises(ValueError, match="fonts are some of"):
        WorldStyle(fonts=("comic",))
    with pytest.raises(ValueError, match="knows the styles"):
        inspect.unwrap(describe)(make_scene(0, "train"), random.Random(0), "poem")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="A change is one of"):
        inspect.unwrap(twin)(make_scene(0, "train"), random.Random(0), "mood")  # type: ignore[arg-type]
