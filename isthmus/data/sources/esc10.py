"""ESC-10: five-second clips of ten kinds of sounds, from a folder of yours, by the collection's own folds.

Source: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015; karolpiczak/ESC-50,
`meta/esc50.csv`. ESC-10 is CC BY; ESC-50, in which it lies, is CC BY-NC. Clips of one recording are in one fold.
"""

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.sample import AUDIO_MARK, Sample, Turn
from isthmus.data.sound import FileSound
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import JsonLines

FOLDER = "esc10-data"
"""Where the recipe and the task look for the collection, in the current directory."""
QUESTION = "What makes this sound?"
NAMES = {
    "dog": "dog bark", "rain": "rain", "sea_waves": "sea waves", "crying_baby": "baby cry", "clock_tick": "clock tick",
    "sneezing": "person sneeze", "helicopter": "helicopter", "chainsaw": "chainsaw", "rooster": "rooster",
    "crackling_fire": "fire crackling",
}  # fmt: skip
"""ESC-50's categories of these ten, and ESC-10's own names, which are the answers."""
KINDS = tuple(NAMES.values())
HEARD, UNHEARD = (1, 2, 3), (4, 5)
"""Folds that the bundled ear was trained on, and the others."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A file below the folder, its kind and its fold."""

    path: str
    kind: str
    fold: int


@dataclass(frozen=True, kw_only=True)
class Esc10(SourceConfig):
    """One clip and the question what makes the sound.

    The folder holds `meta/esc50.csv` and `audio`, as ESC-50 is published (the clips of other kinds are left out), or
    JSON lines with `audio`, `label` and `fold`.
    """

    folder: str = FOLDER
    folds: tuple[int, ...] = HEARD
    rate: int = 16_000
    """Samples a second that the model's audio encoder hears."""

    def build(self) -> Dataset:
        """The questions.

        Raises:
            ValueError: no such folder, nothing in it that says what its clips are, or none of these folds.
        """
        clips = [clip for clip in clips_of(self.folder) if clip.fold in self.folds]
        if not clips:
            raise ValueError(f"{self.folder!r} holds no clip of the folds {self.folds}.")
        return _Questions(tuple(clips), self)


class _Questions:
    def __init__(self, clips: tuple[Clip, ...], config: Esc10) -> None:
        self._clips, self._config = clips, config

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Sample:
        clip, config = self._clips[checked(index, len(self))], self._config
        return Sample(
            id=f"esc10/{clip.path}",
            turns=(
                Turn(role="user", text=f"{AUDIO_MARK}\n{QUESTION}"),
                Turn(role="assistant", text=clip.kind),
            ),
            sounds=(FileSound(root=config.folder, path=clip.path, rate=config.rate),),
        )


def clips_of(folder: str) -> tuple[Clip, ...]:
    """Every clip of ESC-10 in a folder.

    Raises:
        ValueError: no such folder, nothing in it that says what its clips are, or a line that cannot be read.
    """
    root = Path(folder)
    listed = root / "meta" / "esc50.csv"
    lines = sorted(root.glob("*.jsonl"))
    if listed.is_file():
        return tuple(_of_csv(listed))
    if not lines:
        raise ValueError(
            f"No ESC-10 in {folder!r}: it needs meta/esc50.csv and audio, or JSON lines with audio, label and fold. "
            f"Download github.com/karolpiczak/ESC-50 (CC BY-NC; its ESC-10 part CC BY) and name its folder, or link "
            f"{FOLDER} to it."
        )
    return tuple(clip for path in lines for clip in _of_lines(JsonLines(path)))


def _of_csv(path: Path) -> Iterator[Clip]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("esc10", "").lower() == "true":
                yield Clip(path=f"audio/{row['filename']}", kind=NAMES[row["category"]], fold=int(row["fold"]))


def _of_lines(rows: JsonLines) -> Iterator[Clip]:
    for number in range(len(rows)):
        row = rows[number]
        if row.get("label") not in KINDS or not isinstance(row.get("audio"), str):
            raise ValueError(f"{rows.where(number)} names no audio file with a label of ESC-10: {', '.join(KINDS)}.")
        yield Clip(path=row["audio"], kind=row["label"], fold=int(row["fold"]))


def questions(num: int, *, folds: tuple[int, ...] = UNHEARD, folder: str = FOLDER, seed: int = 0) -> list[Sample]:
    """`num` questions about clips of these folds, or as many as there are. Raises ValueError as `Esc10.build` does."""
    asked = Esc10(folder=folder, folds=folds).build()
    order = list(range(len(asked)))
    random.Random(f"esc10 {folds} {seed}").shuffle(order)
    found: list[Sample] = []
    for index in order[:num]:
        sample = asked[index]
        meta = {
            "family": "surroundings",
            "answers": (sample.turns[1].text,),
            "choices": KINDS,
            "chance": 0.1,
            "metric": "exact",
            "group": sample.id,
        }
        found.append(Sample(id=sample.id, turns=sample.turns[:1], sounds=sample.sounds, meta=meta))
    return found
