"""Which frames are chosen, from times alone."""

import numpy as np
import pytest

from isthmus.data.frames import FrameSampling, FramesPerSecond, Keyframes, UniformFrames, read_frames

TENTHS = [number / 10 for number in range(21)]


@pytest.mark.parametrize("num", [1, 2, 3, 8, 21, 30])
def test_uniform_frames_are_those_of_llava_next(num: int) -> None:
    chosen = UniformFrames(num=num).choose(TENTHS, [0])
    assert chosen == np.linspace(0, 20, num, dtype=int).tolist()


def test_a_variable_frame_rate_is_sampled_in_time() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 4.0, 8.0]
    assert UniformFrames(num=3).choose(times, [0]) == [0, 4, 5]
    assert UniformFrames(num=5).choose(times, [0]) == [0, 3, 4, 4, 5]
    assert FramesPerSecond(rate=0.5, max_frames=9).choose(times, [0]) == [0, 3, 4, 4, 5]


def test_frames_per_second_are_bounded() -> None:
    assert FramesPerSecond(rate=2.0).choose(TENTHS, [0]) == [0, 5, 10, 15, 20]
    assert FramesPerSecond(rate=10.0, max_frames=3).choose(TENTHS, [0]) == [0, 10, 20]
    assert FramesPerSecond(rate=1.0).choose([3.0], [0]) == [0]


def test_keyframes_are_kept_whole_or_thinned_out() -> None:
    assert Keyframes().choose(TENTHS, [0, 7, 14]) == [0, 7, 14]
    assert Keyframes(max_frames=3).choose(TENTHS, [0, 4, 8, 12, 16]) == [0, 8, 16]
    assert Keyframes(max_frames=1).choose(TENTHS, [2, 4]) == [2]
    assert Keyframes().choose(TENTHS, []) == [0]


@pytest.mark.parametrize(
    ("make", "most"), [(UniformFrames(num=4), 4), (FramesPerSecond(max_frames=5), 5), (Keyframes(max_frames=6), 6)]
)
def test_never_more_frames_than_said(make: FrameSampling, most: int) -> None:
    long = [number / 30 for number in range(9_000)]
    assert len(make.choose(long, list(range(0, 9_000, 30)))) == make.most == most


@pytest.mark.parametrize(
    "wrong", [lambda: UniformFrames(num=0), lambda: Keyframes(max_frames=0), lambda: FramesPerSecond(rate=0.0)]
)
def test_impossible_choices_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("uniform:12", UniformFrames(num=12)),
        ("uniform", UniformFrames(num=5)),
        ("fps:0.5", FramesPerSecond(rate=0.5, max_frames=5)),
        (" fps:2:16", FramesPerSecond(rate=2.0, max_frames=16)),
        ("keyframes", Keyframes(max_frames=5)),
        ("keyframes:3", Keyframes(max_frames=3)),
    ],
)
def test_a_choice_is_read_from_words(text: str, chosen: FrameSampling) -> None:
    assert read_frames(text, most=5) == chosen


@pytest.mark.parametrize(
    "text", ["", "8", "fps", "fps:0", "fps:nan", "uniform:0", "uniform:2.5", "keyframes:1:2", "all"]
)
def test_words_that_choose_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"chooses no frames\. Write uniform:8"):
        read_frames(text, most=5)
