"""Things that move: the order of the frames says which way, no frame alone does."""

from collections import Counter

import numpy as np
import pytest
from PIL import ImageChops

from isthmus.data.sources.moving_things import DIRECTIONS, MovingClip, MovingThings, moving_clip, questions
from isthmus.data.sources.world import RGB, Background

FLAT = Background(kind="flat", first=(250, 250, 250), second=(250, 250, 250), periods=3, turned=False, seed=0)


def clip(direction: str, start: tuple[float, float]) -> MovingClip:
    return MovingClip(
        colour="red", shape="square", direction=direction, start=start, step=0.125, side=0.25, background=FLAT
    )


def middles(made: MovingClip) -> list[tuple[float, float]]:
    """Mean column and row of the red pixels of every frame, in pixels."""
    found = []
    for frame in made.load().frames:
        red = np.abs(np.asarray(frame).astype(int) - RGB["red"]).sum(axis=2) < 30
        rows, columns = np.nonzero(red)
        found.append((float(columns.mean()), float(rows.mean())))
    return found


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_goes_where_it_is_said_to(direction: str) -> None:
    places = np.array(middles(clip(direction, (0.375, 0.375))))
    steps = np.diff(places, axis=0)
    assert steps == pytest.approx(np.tile(np.array(DIRECTIONS[direction]) * 12.0, (3, 1)), abs=0.6)


def test_what_leaves_on_one_side_comes_in_on_the_other() -> None:
    frames = clip("right", (0.5, 0.3)).load().frames
    column = [np.abs(np.asarray(frame)[40].astype(int) - RGB["red"]).sum(axis=1) < 30 for frame in frames]
    assert [bool(row[0]) for row in column] == [False, False, False, True]
    assert {int(row.sum()) for row in column} <= {22, 23, 24}


def test_there_and_back_show_the_same_frames_in_the_other_order() -> None:
    to_left, to_right = clip("left", (0.975, 0.3)), clip("right", (0.6, 0.3))
    forth, back = to_left.load().frames, to_right.load().frames
    for one, other in zip(forth, reversed(back), strict=True):
        assert max(high for _, high in ImageChops.difference(one, other).getextrema()) < 40
    assert to_left.key != to_right.key


def test_no_place_tells_the_way() -> None:
    """Where a thing begins is drawn without regard to where it goes: the halves of the picture are alike under all."""
    drawn = [moving_clip(f"count {number}") for number in range(2_000)]
    ways = Counter(one.direction for one in drawn)
    assert all(420 < count < 580 for count in ways.values())
    for way in DIRECTIONS:
        starts = [one.start for one in drawn if one.direction == way]
        assert all(0.42 < sum(start[axis] < 0.5 for start in starts) / len(starts) < 0.58 for axis in (0, 1))


def test_controls_show_the_same_frames_shuffled_or_the_first_alone() -> None:
    moving, shuffled, still = (questions(40, shown=shown) for shown in ("moving", "shuffled", "still"))
    assert [one.meta["answers"] for one in moving] == [one.meta["answers"] for one in shuffled]
    assert [one.turns for one in moving] == [one.turns for one in still]
    for true, mixed, first in zip(moving, shuffled, still, strict=True):
        shown = [[frame.tobytes() for frame in one.videos[0].load().frames] for one in (true, mixed, first)]
        assert sorted(shown[0]) == sorted(shown[1])
        assert shown[2] == shown[0][:1] * 4
    orders = Counter(moving_clip(f"order {number}", "shuffled").order for number in range(2_400))
    assert len(orders) == 24
    assert min(orders.values()) > 60


def test_splits_and_seeds_show_other_clips() -> None:
    keys = [
        {sample.videos[0].key for index in range(20) for sample in [made[index]]}
        for made in (MovingThings().build(), MovingThings(seed=1).build(), MovingThings(split="test").build())
    ]
    assert len(set.union(*keys)) == 60
    asked = MovingThings().build()[0]
    thing = asked.videos[0]
    assert isinstance(thing, MovingClip)
    assert asked.turns[0].text == f"<video>\nWhich way does the {thing.colour} {thing.shape} move?"
    assert asked.turns[1].text == thing.direction


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="1 clip and 32 pixels at least"):
        MovingThings(num=0)
