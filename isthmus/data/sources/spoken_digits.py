"""Spoken digits from zero to nine: recordings of four speakers to learn from, and of two others to be asked about.

Source: the Free Spoken Digit Dataset (CC BY-SA 4.0); `bundled/digits/README.md` names the commit.
"""

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from isthmus.data.sample import AUDIO_MARK, Sample, Turn
from isthmus.data.sound import PackedSound
from isthmus.data.sources.base import Dataset, SourceConfig, checked

FOLDER = Path(__file__).parents[2] / "bundled" / "digits"
QUESTION = "Which digit is said?"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = tuple(str(digit) for digit in range(10))
ASKED = (QUESTION, "Which number do you hear?", "What does the speaker say?", "Which digit does the voice say?")
"""The first is asked of held-out speakers; training draws from all."""

DigitSplit = Literal["train", "val", "test"]
About = Literal["digit", "presence", "both"]
"""Which digit it is; whether it is the one that is named (half of them are); or one of the two, drawn."""


def is_heard(digit: int) -> str:
    """The question whether this digit is heard."""
    return f"Do you hear {'an' if digit == 8 else 'a'} {WORDS[digit]}?"


def another(digit: int, rng: random.Random) -> int:
    """Any other digit."""
    return (digit + rng.randrange(1, 10)) % 10


def asked_about(digit: int, about: About, rng: random.Random) -> tuple[Turn, Turn]:
    """A question about a digit that stands at the mark for sounds, and its answer."""
    question, answer = rng.choice(ASKED), DIGITS[digit]
    if about == "presence" or (about == "both" and rng.random() < 0.5):
        there = rng.random() < 0.5
        question, answer = is_heard(digit if there else another(digit, rng)), "yes" if there else "no"
    return Turn(role="user", text=f"{AUDIO_MARK}\n{question}"), Turn(role="assistant", text=answer)


@lru_cache(maxsize=8)
def _rows(split: str) -> tuple[dict[str, Any], ...]:
    if split not in get_args(DigitSplit):
        raise ValueError(f"A split of SpokenDigits is one of {get_args(DigitSplit)}, got {split!r}.")
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def _sound(row: dict[str, Any], rate: int, speed: float = 1.0) -> PackedSound:
    archive = str(FOLDER / "sounds.zip")
    return PackedSound(archive=archive, offset=row["offset"], size=row["bytes"], rate=rate, speed=speed)


@dataclass(frozen=True, kw_only=True)
class SpokenDigits(SourceConfig):
    """One recording and one question a sample. The speakers of "test" are in no other split."""

    split: DigitSplit = "train"
    rate: int = 16_000
    """Samples a second that the model's audio encoder hears."""
    speeds: tuple[float, ...] = (1.0,)
    """Every recording is a sample at each of these speeds, which alter pitch and tempo as another voice does."""
    about: About = "digit"

    def __post_init__(self) -> None:
        if not self.speeds:
            raise ValueError("SpokenDigits(speeds=()) has no samples: give one speed at least, (1.0,).")

    def build(self) -> Dataset:
        """The questions. Raises ValueError for an unknown split."""
        return _Questions(_rows(self.split), self)


class _Questions:
    def __init__(self, rows: tuple[dict[str, Any], ...], config: SpokenDigits) -> None:
        self._rows, self._rate, self._speeds, self._about = rows, config.rate, config.speeds, config.about

    def __len__(self) -> int:
        return len(self._rows) * len(self._speeds)

    def __getitem__(self, index: int) -> Sample:
        place, number = divmod(checked(index, len(self)), len(self._speeds))
        row, speed = self._rows[place], self._speeds[number]
        played = "" if speed == 1.0 else f", speed {speed}"
        rng = random.Random(f"spoken digit {row['id']}{played}")
        turns = asked_about(WORDS.index(row["text"]), self._about, rng)
        return Sample(id=f"digits/{row['id']}{played}", turns=turns, sounds=(_sound(row, self._rate, speed),))


def questions(num: int, *, split: DigitSplit = "test", seed: int = 0, rate: int = 16_000) -> list[Sample]:
    """`num` questions "which digit is said?", or as many as the split has; the group is the speaker and the digit.

    Raises:
        ValueError: an unknown split.
    """
    rows = list(_rows(split))
    random.Random(f"spoken digits {split} {seed}").shuffle(rows)
    return [
        Sample(
            id=f"digits/{row['id']}",
            turns=(Turn(role="user", text=f"{AUDIO_MARK}\n{QUESTION}"),),
            sounds=(_sound(row, rate),),
            meta={
                "family": "spoken digits",
                "answers": (DIGITS[WORDS.index(row["text"])], row["text"]),
                "choices": DIGITS,
                "chance": 0.1,
                "metric": "exact",
                "group": f"digits/{row['speaker']}/{row['text']}",
                "detail": {"speaker": row["speaker"]},
            },
        )
        for row in rows[:num]
    ]


def presence(num: int, *, there: bool, split: DigitSplit = "test", seed: int = 0, rate: int = 16_000) -> list[Sample]:
    """`num` questions "do you hear a seven?" about recordings of a seven, or about those of another digit.

    All answers are "yes", or all are "no": what is missed in the second is what is heard that is not there.

    Raises:
        ValueError: an unknown split.
    """
    asked: list[Sample] = []
    for item in questions(num, split=split, seed=seed, rate=rate):
        digit = DIGITS.index(item.meta["answers"][0])
        name = digit if there else another(digit, random.Random(f"presence {item.id} {seed}"))
        meta = {**item.meta, "answers": ("yes" if there else "no",), "choices": ("yes", "no"), "chance": 0.5}
        asked.append(
            Sample(
                id=f"{item.id}/{WORDS[name]}",
                turns=(Turn(role="user", text=f"{AUDIO_MARK}\n{is_heard(name)}"),),
                sounds=item.sounds,
                meta=meta,
            )
        )
    return asked
