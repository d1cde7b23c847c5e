"""Eleven short real clips with a sentence each: their first halves to learn from, their last fifths to be asked about.

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
QUESTION = "What happens in this clip?"
FRAMES = UniformFrames(num=4)
SECONDS = 0.4
ANSWER_TOKENS = 64
"""More than the longest sentence takes in the bundled speaker's pieces."""

ClipSplit = Literal["train", "val", "test"]
PARTS: dict[ClipSplit, tuple[float, float]] = {"train": (0.0, 0.5), "val": (0.55, 0.75), "test": (0.8, 1.0)}
"""Of every clip; the gaps keep moments apart that are nearly the same picture."""


@dataclass(frozen=True, kw_only=True)
class RealClips(SourceConfig):
    """0.4 seconds of a clip and the question what happens in it; the answer is the clip's sentence.

    All splits show the same clips, at other moments: what is asked of "test" is to know a clip again.
    """

    split: ClipSplit = "train"
    windows: int = 12
    """Of each clip at most, evenly spread over the split's part of it."""
    frames: FrameSampling = field(default_factory=lambda: FRAMES)
    """Which frames of a window are seen."""

    def build(self) -> Dataset:
        """The windows. Raises ValueError when there is no window, or the bundled clips cannot be read."""
        clips = ClipFile(path=str(FOLDER / "clips.jsonl"), root=str(FOLDER), question=QUESTION, frames=self.frames)
        return ClipWindows(of=clips, part=PARTS[self.split], seconds=SECONDS, num=self.windows).build()


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
