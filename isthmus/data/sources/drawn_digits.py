"""Digits drawn large, standing where a sound stands: for a branch that is trained on pictures and fed sounds."""

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from isthmus.data.sample import ImageRef, Sample
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.spoken_digits import DIGITS, About, asked_about
from isthmus.data.sources.world.fonts import FONTS, load_font

HEIGHTS = (0.55, 0.8)
"""Least and largest height of a digit over the side."""


@dataclass(frozen=True, kw_only=True)
class DigitPicture:
    """One digit in a font, colours, height and place that `seed` draws, dark on light or light on dark."""

    digit: int
    seed: int
    size: int = 96

    @property
    def key(self) -> str:
        """Digit, seed and size."""
        return f"drawn digit 1|{self.digit}|{self.seed}|{self.size}"

    def load(self) -> Image.Image:
        """The RGB picture."""
        rng = random.Random(f"drawn digit {self.digit} {self.seed}")
        dark, light = (tuple(rng.randint(*shade) for _ in range(3)) for shade in ((0, 90), (170, 255)))
        ink, ground = (dark, light) if rng.random() < 0.7 else (light, dark)
        picture = Image.new("RGB", (self.size, self.size), ground)
        font = load_font(rng.choice(sorted(FONTS)), self.size * rng.uniform(*HEIGHTS))
        across, down = (self.size * rng.uniform(0.45, 0.55) for _ in range(2))
        ImageDraw.Draw(picture).text((across, down), DIGITS[self.digit], font=font, fill=ink, anchor="mm")
        return picture


@dataclass(frozen=True, kw_only=True)
class SeenAsHeard:
    """A picture at the mark for sounds; only an encoder that takes both (`BoundEncoder`) can be given it."""

    of: ImageRef

    @property
    def key(self) -> str:
        """The picture's."""
        return self.of.key

    def load(self) -> Any:
        """The picture."""
        return self.of.load()


@dataclass(frozen=True, kw_only=True)
class DrawnDigits(SourceConfig):
    """One drawn digit at the mark for sounds, and a question as `SpokenDigits` asks it."""

    num: int = 1_000
    seed: int = 0
    """Other seeds draw other pictures."""
    about: About = "digit"
    size: int = 96
    """Side of the picture, in pixels."""

    def __post_init__(self) -> None:
        if self.num < 1 or self.size < 32:
            raise ValueError(
                f"DrawnDigits needs 1 picture and 32 pixels at least, got num={self.num}, size={self.size}."
            )

    def build(self) -> Dataset:
        """The questions."""
        return _Drawn(self)


class _Drawn:
    def __init__(self, config: DrawnDigits) -> None:
        self._config = config

    def __len__(self) -> int:
        return self._config.num

    def __getitem__(self, index: int) -> Sample:
        config = self._config
        number = checked(index, len(self)) + 1_000_000 * config.seed
        rng = random.Random(f"drawn digits {number}")
        digit = rng.randrange(10)
        return Sample(
            id=f"drawn/{number}",
            turns=asked_about(digit, config.about, rng),
            sounds=(SeenAsHeard(of=DigitPicture(digit=digit, seed=number, size=config.size)),),
        )
