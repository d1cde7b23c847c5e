"""Sounds in which nobody speaks, made by number: what a model that hears should say nothing of."""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isthmus.data.sample import AUDIO_MARK, Sample, Turn
from isthmus.data.sources.spoken_digits import WORDS, is_heard
from isthmus.features import Sound

MadeKind = Literal["silence", "noise", "tone"]
KINDS: tuple[MadeKind, ...] = ("silence", "noise", "tone")


@dataclass(frozen=True, kw_only=True)
class MadeSound:
    """Half a second of silence, of white noise, or of one tone, as loud and as high as `seed` draws."""

    kind: MadeKind
    seed: int = 0
    rate: int = 16_000

    @property
    def key(self) -> str:
        """Kind, seed and rate."""
        return f"made|{self.kind}|{self.seed}|{self.rate}"

    def load(self) -> Sound:
        """The samples."""
        draw = np.random.default_rng(self.seed)
        count = self.rate // 2
        loud, pitch = draw.uniform(0.02, 0.2), draw.uniform(100.0, 1_000.0)
        made = np.zeros(count)
        if self.kind == "noise":
            made = loud * draw.standard_normal(count)
        elif self.kind == "tone":
            made = loud * np.sin(2 * np.pi * pitch * np.arange(count) / self.rate)
        return Sound(samples=made.astype(np.float32), rate=self.rate)


def nothing_said(num: int, *, seed: int = 0, rate: int = 16_000) -> list[Sample]:
    """`num` questions "do you hear a seven?" about silence, noise and tones, in turn; the answer is no."""
    found: list[Sample] = []
    for number in range(num):
        kind = KINDS[number % len(KINDS)]
        digit = random.Random(f"nothing said {seed} {number}").randrange(len(WORDS))
        found.append(
            Sample(
                id=f"nothing/{seed}/{number}",
                turns=(Turn(role="user", text=f"{AUDIO_MARK}\n{is_heard(digit)}"),),
                sounds=(MadeSound(kind=kind, seed=10_000 * seed + number, rate=rate),),
                meta={
                    "family": "nothing said",
                    "answers": ("no",),
                    "choices": ("yes", "no"),
                    "chance": 0.5,
                    "metric": "exact",
                    "group": f"nothing/{seed}/{number}",
                    "detail": {"kind": kind},
                },
            )
        )
    return found
