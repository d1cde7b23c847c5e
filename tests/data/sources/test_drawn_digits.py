"""Drawn digits at a sound's mark, questions whether a digit is heard, and sounds in which nobody speaks."""

from collections import Counter

import numpy as np
import pytest

from isthmus.data.sources import DrawnDigits, SpokenDigits
from isthmus.data.sources.drawn_digits import DigitPicture
from isthmus.data.sources.made_sounds import MadeSound, nothing_said
from isthmus.data.sources.spoken_digits import ASKED, DIGITS, WORDS, is_heard, presence, questions


def test_a_drawn_digit_stands_where_a_sound_stands() -> None:
    dataset = DrawnDigits(num=40, about="digit").build()
    samples = [dataset[index] for index in range(40)]
    assert {sample.turns[0].text.removeprefix("<audio>\n") for sample in samples} <= set(ASKED)
    assert len({sample.turns[1].text for sample in samples}) == 10
    assert samples[0].sounds[0].key.split("|")[1] == samples[0].turns[1].text
    assert samples[0] == DrawnDigits(num=40, about="digit").build()[0]
    with pytest.raises(ValueError, match="1 picture and 32 pixels"):
        DrawnDigits(num=0)


def test_pictures_of_a_digit_differ_and_show_ink() -> None:
    pictures = [np.asarray(DigitPicture(digit=7, seed=seed).load(), dtype=float) for seed in (1, 2)]
    assert pictures[0].shape == (96, 96, 3)
    assert not (pictures[0] == pictures[1]).all()
    for picture in pictures:
        shares = np.abs(picture - picture[0, 0]).sum(axis=2) > 60
        assert 0.03 < shares.mean() < 0.5


def test_half_of_the_questions_whether_are_answered_yes() -> None:
    dataset = DrawnDigits(num=200, about="presence").build()
    samples = [dataset[index] for index in range(200)]
    said = Counter(sample.turns[1].text for sample in samples)
    assert set(said) == {"yes", "no"}
    assert 70 <= said["yes"] <= 130
    for sample in samples:
        digit = int(sample.sounds[0].key.split("|")[1])
        right = sample.turns[0].text == f"<audio>\n{is_heard(digit)}"
        assert sample.turns[1].text == ("yes" if right else "no")
    assert is_heard(8) == "Do you hear an eight?"


def test_recordings_are_asked_about_both_ways() -> None:
    dataset = SpokenDigits(split="val", about="both").build()
    answers = {dataset[index].turns[1].text for index in range(len(dataset))}
    assert {"yes", "no"} < answers <= {"yes", "no", *DIGITS}
    for there in (True, False):
        items = presence(200, there=there)
        assert {item.meta["answers"] for item in items} == {("yes" if there else "no",)}
        truth = {one.sounds[0].key: one.meta["answers"][1] for one in questions(200)}
        for item in items:
            named = item.turns[0].text.split()[-1].removesuffix("?")
            assert named in WORDS
            assert (truth[item.sounds[0].key] == named) == there


def test_nobody_speaks() -> None:
    items = nothing_said(6)
    assert [item.meta["detail"]["kind"] for item in items] == ["silence", "noise", "tone"] * 2
    assert len({item.sounds[0].key for item in items}) == 6
    silence, noise, tone = (item.sounds[0].load() for item in items[:3])
    assert not silence.samples.any()
    assert float(np.abs(np.fft.rfft(tone.samples)).max()) > 10 * float(np.abs(np.fft.rfft(noise.samples)).mean())
    one, again = (MadeSound(kind="noise", seed=3).load().samples for _ in range(2))
    assert (one == again).all()
