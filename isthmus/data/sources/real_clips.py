"""Short clips with a sentence each, bundled or yours: first halves to learn from, last fifths to be asked about.

Source: Intel's sample videos (CC BY 4.0) and Big Buck Bunny (CC BY 3.0); `bundled/clips/README.md` has the details.
"""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from isthmus.data.frames import FrameSampling, UniformFrames
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.clip_file import ClipFile
from isthmus.data.sources.clip_windows import ClipWindows

FOLDER = Path(__file__).parents[2] / "bundled" / "clips"
BUNDLED_NAME = "bundled/clips"
TABLE = "clips.jsonl"
QUESTION = "What happens in this clip?"
ANSWER_TOKENS = 64
"""More than the longest sentence takes in the bundled speaker's pieces."""

ClipSplit = Literal["train", "val", "test"]
PARTS: dict[ClipSplit, tuple[float, float]] = {"train": (0.0, 0.5), "val": (0.55, 0.75), "test": (0.8, 1.0)}
"""Of every clip; the gaps keep moments apart that are nearly the same picture."""


@dataclass(frozen=True, kw_only=True)
class RealClips(SourceConfig):
    """A short window of a clip and the question what happens in it; the answer is the clip's sentence.

    All splits show the same clips, at other moments: what is asked of "test" is to know a clip again.
    """

    split: ClipSplit = "train"
    folder: str = BUNDLED_NAME
    """The bundled clips, or a folder of yours: in it `clips.jsonl` as `ClipFile` reads it, and the videos."""
    seconds: float = 0.4
    """How long a window is."""
    windows: int = 12
    """Of each clip at most, evenly spread over the split's part of it."""
    frames: FrameSampling = field(default_factory=lambda: UniformFrames(num=4))
    """Which frames of a window are seen."""

    def build(self) -> Dataset:
        """The windows. Raises ValueError, naming the row, when a clip cannot be read or is too short for a window."""
        folder = FOLDER if self.folder == BUNDLED_NAME else Path(self.folder)
        if not (folder / TABLE).is_file():
            raise ValueError(
                f"No {TABLE} in {self.folder!r}: write one line a clip, such as "
                f'{{"video": "yard.mp4", "text": "A dog runs across a yard."}}, with paths relative to the folder.'
            )
        clips = ClipFile(path=str(folder / TABLE), root=str(folder), question=QUESTION, frames=self.frames)
        return ClipWindows(of=clips, part=PARTS[self.split], seconds=self.seconds, num=self.windows).build()


def questions(num: int, *, split: ClipSplit = "test", windows: int = 4, seed: int = 0) -> list[Sample]:
    """`num` questions what happens in a window, or as many as there are; the group is the clip.

    Right is the clip's whole sentence, one of eleven.
    """
    asked = RealClips(split=split, windows=windows).build()
    samples = [asked[index] for index in range(len(asked))]
    sentences = tuple(sorted({sample.turns[1].text for sample in samples}))
    random.Random(f"real clips {split} {seed}").shuffle(samples)
    return [
        replace(
            sample,
            id=f"clips/{sample.id}",
            turns=sample.turns[:1],
            meta={
                "family": "real clips",
                "answers": (sample.turns[1].text,),
                "answer_tokens": ANSWER_TOKENS,
                "choices": sentences,
                "chance": 1 / len(sentences),
                "metric": "exact",
                "group": f"clips/{sample.meta['clip']}",
            },
        )
        for sample in samples[:num]
    ]
