"""The packed spoken digits: splits by speaker, sounds that open, questions about speakers not heard."""

import json
from collections import Counter

import pytest

from isthmus.data.sound import FileSound, PackedSound
from isthmus.data.sources import SpokenDigits
from isthmus.data.sources.spoken_digits import FOLDER, questions


def rows(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_splits_are_by_speaker_and_the_licence_is_beside_them() -> None:
    speakers = {split: Counter(row["speaker"] for row in rows(split)) for split in ("train", "val", "test")}
    assert speakers["train"] == dict.fromkeys(("george", "jackson", "lucas", "nicolas"), 50)
    assert speakers["val"] == dict.fromkeys(speakers["train"], 10)
    assert speakers["test"] == {"theo": 100, "yweweler": 100}
    assert not {row["id"] for row in rows("train")} & {row["id"] for row in rows("val")}
    assert "Attribution-ShareAlike 4.0" in (FOLDER / "README.md").read_text()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 1_900_000


def test_a_packed_sound_is_the_file_beside_it() -> None:
    packed = next(one for one in questions(200) if one.id == "digits/7_theo_7").sounds[0]
    assert isinstance(packed, PackedSound)
    beside = FileSound(root=str(FOLDER / "examples"), path="seven.flac").load()
    assert packed.load().rate == beside.rate == 16_000
    assert (packed.load().samples == beside.samples).all()
    assert 0.1 < len(beside.samples) / 16_000 < 1.5
    with pytest.raises(ValueError, match=r"sounds\.zip@9999999 is cut short"):
        PackedSound(archive=packed.archive, offset=9_999_999, size=10).load()
    with pytest.raises(ValueError, match=r"sounds\.zip@0 is broken or no video or sound file"):
        PackedSound(archive=packed.archive, offset=0, size=30).load()


def test_the_answer_is_a_digit_and_its_word_counts_too() -> None:
    asked = questions(200)
    assert Counter(one.meta["answers"][0] for one in asked) == {str(digit): 20 for digit in range(10)}
    zero = next(one for one in asked if one.id == "digits/0_theo_3")
    assert zero.meta["answers"] == ("0", "zero")
    assert zero.turns[0].text == "<audio>\nWhich digit is said?"
    dataset = SpokenDigits(split="train").build()
    said = {dataset[index].turns[0].text.split("\n")[1] for index in range(len(dataset))}
    assert len(dataset) == 200
    assert len(said) == 4


def test_a_recording_at_other_speeds_is_shorter_and_has_its_own_key() -> None:
    plain, fast = (SpokenDigits(split="val", speeds=(1.0, 1.25)).build()[index] for index in (0, 1))
    sounds = [one.sounds[0] for one in (plain, fast)]
    lengths = [len(sound.load().samples) for sound in sounds]
    assert lengths[1] == pytest.approx(lengths[0] / 1.25, rel=0.01)
    assert sounds[1].load().rate == 16_000
    assert plain.turns[-1] == fast.turns[-1]
    assert (plain.id, fast.id) == (SpokenDigits(split="val").build()[0].id, f"{plain.id}, speed 1.25")
    assert len({sound.key for sound in sounds}) == 2
    assert sounds[0].key == SpokenDigits(split="val").build()[0].sounds[0].key
    with pytest.raises(ValueError, match="one speed at least"):
        SpokenDigits(speeds=())
    with pytest.raises(ValueError, match=r"speed=3.0\) must be 0.5 to 2"):
        PackedSound(archive="a.zip", offset=0, size=1, speed=3.0)
