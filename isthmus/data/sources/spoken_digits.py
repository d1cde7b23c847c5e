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

    def __post_init__(self) -> None:
        if not self.speeds:
            raise ValueError("SpokenDigits(speeds=()) has no samples: give one speed at least, (1.0,).")

    def build(self) -> Dataset:
        """The questions. Raises ValueError for an unknown split."""
        return _Questions(_rows(self.split), self.rate, self.speeds)


class _Questions:
    def __init__(self, rows: tuple[dict[str, Any], ...], rate: int, speeds: tuple[float, ...]) -> None:
        self._rows, self._rate, self._speeds = rows, rate, speeds

    def __len__(self) -> int:
        return len(self._rows) * len(self._speeds)

    def __getitem__(self, index: int) -> Sample:
        place, number = divmod(checked(index, len(self)), len(self._speeds))
        row, speed = self._rows[place], self._speeds[number]
        played = "" if speed == 1.0 else f", speed {speed}"
        asked = random.Random(f"spoken digit {row['id']}{played}").choice(ASKED)
        turns = (
            Turn(role="user", text=f"{AUDIO_MARK}\n{asked}"),
            Turn(role="assistant", text=DIGITS[WORDS.index(row["text"])]),
        )
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
