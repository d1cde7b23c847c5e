"""Small things: their heights are what they say, and every answer follows from the scene."""

import random
from collections import Counter

import pytest

from isthmus.data.sources import SmallThings
from isthmus.data.sources.small_scenes import small_scene, tile_of, tiles_of
from isthmus.data.sources.small_things import HEIGHTS, LARGE, ask_small, small_questions, spanning
from isthmus.data.sources.world import CELLS, HELD_OUT, bucket


def test_a_scene_has_what_was_asked_for_inside_its_cells() -> None:
    heights = Counter[float]()
    for number in range(60):
        scene = small_scene(f"0 {number}", "val", items=3, numbers=2, heights=HEIGHTS)
        assert bucket(scene.key()) == "val"
        assert (len(scene.items), len(scene.writings)) == (3, 2)
        assert len({item.colour for item in scene.items}) == len({item.shape for item in scene.items}) == 3
        assert not HELD_OUT & {(item.colour, item.shape) for item in scene.items}
        assert len({thing.cell for thing in (*scene.items, *scene.writings)}) == 5
        assert len({writing.text for writing in scene.writings}) == 2
        for thing in (*scene.items, *scene.writings):
            row, column = divmod(thing.cell, 3)
            x0, y0, x1, y1 = thing.box
            assert column / 3 <= x0 < x1 <= (column + 1) / 3
            assert row / 3 <= y0 < y1 <= (row + 1) / 3
        heights.update(round(96 * (item.box[3] - item.box[1]), 6) for item in scene.items)
        heights.update(round(96 * writing.glyph_height, 6) for writing in scene.writings)
    assert set(heights) == set(HEIGHTS)


def test_the_picture_shows_the_height() -> None:
    """At 192 px a square of 20 px of 96 covers 40 rows."""
    config = SmallThings(heights=(20.0,), num_scenes=200)
    scene = next(scene for scene in map(config.scene, range(200)) if scene.items[0].shape == "square")
    item = scene.items[0]
    box = [round(192 * edge) for edge in item.box]
    assert box[3] - box[1] in (40, 41)
    image = config.build()[0].images[0].load()
    assert image.size == (192, 192)


def test_tiles_of_a_two_by_two_cut() -> None:
    assert [tiles_of(box) for box in ((0.1, 0.1, 0.3, 0.3), (0.4, 0.1, 0.6, 0.3), (0.4, 0.4, 0.6, 0.6))] == [1, 2, 4]
    boxes = ((0.0, 0.0, 0.2, 0.2), (0.7, 0.0, 0.9, 0.2), (0.0, 0.6, 0.2, 0.8), (0.45, 0.5, 0.6, 0.7))
    assert [tile_of(box) for box in boxes] == [0, 1, 2, 3]


def test_a_conversation_takes_the_families_in_turn() -> None:
    sample = SmallThings(num_scenes=5, items=2, questions=7).build()[3]
    families = Counter(sample.meta["families"])
    assert families == {"digit": 1, "shape": 2, "colour": 2, "place": 2}
    assert len({turn.text for turn in sample.turns if turn.role == "user"}) == 7
    assert sample.turns[0].text.startswith("<image>\n")
    assert sum("<image>" in turn.text for turn in sample.turns) == 1


def test_answers_follow_from_the_scene() -> None:
    config = SmallThings(num_scenes=1, items=3, numbers=2, families=("digit", "shape", "colour", "place", "side"))
    scene = config.scene(0)
    by_colour = {item.colour: item for item in scene.items}
    asked = ask_small(scene, random.Random(0), config.families, 100)
    assert {one.family for one in asked} == set(config.families)
    for one in asked:
        words = one.text.rstrip("?").split()
        if one.family == "digit":
            cell = one.text.removeprefix("What number is written at the ").removesuffix("?")
            assert one.answer == next(w.text for w in scene.writings if CELLS[w.cell] == cell)
            assert one.detail["glyph_px"] in HEIGHTS
        elif one.family == "shape":
            assert one.answer == by_colour[words[4]].shape
            assert one.detail["item_px"] == pytest.approx(
                96 * (by_colour[words[4]].box[3] - by_colour[words[4]].box[1])
            )
        elif one.family == "place":
            assert one.answer == CELLS[by_colour[words[3]].cell]
        elif one.family == "side":
            first, second = by_colour[words[2]], by_colour[words[-2]]
            axis = 0 if one.detail["relation"] in ("left of", "right of") else 1
            step = (first.cell % 3, first.cell // 3)[axis] - (second.cell % 3, second.cell // 3)[axis]
            sign = -1 if one.detail["relation"] in ("left of", "above") else 1
            assert step != 0
            assert (one.answer == "yes") == (step * sign > 0)
            assert one.detail["together"] in ("one tile", "two tiles")


def test_held_out_questions_carry_what_a_report_breaks_down_by() -> None:
    digits = small_questions("digit", 40)
    assert len(digits) == 40
    assert {item.meta["detail"]["glyph_px"] for item in digits} == set(HEIGHTS)
    assert digits == small_questions("digit", 40)
    large = small_questions("shape", 60, large=True)
    assert {item.meta["detail"]["item_px"] for item in large} == set(LARGE)
    assert {item.meta["detail"]["tiles"] for item in large} == {1, 2, 4}
    assert len({item.meta["group"] for item in large}) == 30
    sides = small_questions("side", 60, large=True)
    answers = Counter(item.meta["answers"][0] for item in sides)
    assert 18 <= answers["yes"] <= 42
    assert spanning("train", 8, families=("side",)).numbers == 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"families": ("digit", "colours")}, "SmallThings asks 1 question"),
        ({"items": 1}, "draws 2 to 8 items"),
        ({"numbers": 0}, "writes no number"),
        ({"heights": (30.0,)}, "heights are 3 to 26 pixels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SmallThings(**changes)  # type: ignore[arg-type]
