"""Text alone, one image, several, clips, sounds and all of them together, as samples and a model so small that a step
takes milliseconds."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_ears import save_ear
from tiny_stage import Swatch, save_eye, tiny_stage

from isthmus.branches import Branch
from isthmus.connectors import AudioQFormerConfig, MlpConfig, QFormerConfig, VideoQFormerConfig
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources.base import Dataset, Source, SourceConfig
from isthmus.encoders import AudioEncoder, VideoEncoder, VisionEncoder
from isthmus.features import Clip, Sound
from isthmus.train.stage import AdamW, Stage

KINDS = 6
"""Samples of every kind stand in turn."""


@dataclass(frozen=True, kw_only=True)
class Flicker:
    """A clip of so many frames, each of its own grey level."""

    number: int
    frames: int

    @property
    def key(self) -> str:
        return f"flicker {self.number} {self.frames}"

    def load(self) -> Clip:
        levels = [(40 * place + 7 * self.number) % 256 for place in range(self.frames)]
        frames = tuple(Image.new("RGB", (20, 16), (level, level, 90)) for level in levels)
        return Clip(frames=frames, times_s=tuple(float(place) for place in range(self.frames)))


@dataclass(frozen=True, kw_only=True)
class Hum:
    """A sound of so many seconds and its own pitch."""

    number: int
    seconds: float

    @property
    def key(self) -> str:
        return f"hum {self.number} {self.seconds}"

    def load(self) -> Sound:
        moments = np.arange(round(16_000 * self.seconds)) / 16_000
        return Sound(samples=np.sin(moments * 700 * (self.number + 1)).astype(np.float32), rate=16_000)


@dataclass(frozen=True, kw_only=True)
class Medley(SourceConfig):
    """`num` samples of the kinds in `kinds`, in turn."""

    num: int = 12
    kinds: tuple[int, ...] = tuple(range(KINDS))

    def build(self) -> Dataset:
        return MedleySamples(self)


class MedleySamples:
    def __init__(self, config: Medley) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.num

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return medley(index, self.config.kinds[index % len(self.config.kinds)])


def medley(number: int, kind: int) -> Sample:
    """The sample of this number and kind."""
    one, two = (Swatch(colour=colour, number=number) for colour in ("red", "blue"))
    clip, hum = Flicker(number=number, frames=1 + number % 3), Hum(number=number, seconds=0.2 + 0.3 * (number % 2))
    asked, answer = Turn(role="user", text="so?"), Turn(role="assistant", text=f"yes {number}")
    name = f"medley/{number}"
    if kind == 1:
        return Sample(id=name, turns=(replace(asked, text="<image>\nso?"), answer), images=(one,))
    if kind == 2:
        return Sample(id=name, turns=(replace(asked, text="a <image> b <image>"), answer), images=(one, two))
    if kind == 3:
        return Sample(id=name, turns=(replace(asked, text="<video>\nso?"), answer), videos=(clip,))
    if kind == 4:
        return Sample(id=name, turns=(replace(asked, text="<audio>\nso?"), answer), sounds=(hum,))
    if kind == 5:
        turns = (replace(asked, text="<audio>is<image>?"), answer, replace(asked, text="<video>or<image>?"), answer)
        return Sample(id=name, turns=turns, images=(two, one), videos=(clip,), sounds=(hum,))
    return Sample(id=name, turns=(asked, answer))


def medley_stage(root: Path, **changes: object) -> Stage:
    """Everything but the language model and the towers learns."""
    stage = tiny_stage(root, steps=3, batch_size=6, log_every=1)
    ear = root / "ear"
    if not ear.is_dir():
        save_ear("ast", ear)
    eye = VisionEncoder(name=save_eye(root), image_size=16)
    small = QFormerConfig(num_queries=2, width=16, layers=1, heads=2, ffn_width=24, cross_every=1, dropout=0.0)
    model = replace(
        stage.model,
        connector=MlpConfig(depth=2),
        video=Branch(
            encoder=VideoEncoder(tower=eye, max_frames=3),
            connector=VideoQFormerConfig(image=small, num_queries=3, layers=1, max_frames=3),
        ),
        audio=Branch(
            encoder=AudioEncoder(name=str(ear), window_s=0.3, max_windows=2),
            connector=AudioQFormerConfig(
                num_queries=2, width=16, layers=1, heads=2, ffn_width=24, dropout=0.0, max_windows=2
            ),
        ),
    )
    return replace(
        stage,
        name="medley",
        model=model,
        train=("connector", "video.connector", "audio.connector"),
        data=(Source(of=Medley()),),
        validation=(Source(of=Medley(num=6)),),
        optimizer=AdamW(peak_lr=1e-2, clip_norm=1.0),
        validate_every=3,
        save_every=3,
        **changes,  # type: ignore[arg-type]
    )
