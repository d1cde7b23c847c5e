"""A stage so small that a step takes milliseconds: tiny random models, and pictures of one colour to be named."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tiny_models import save_model
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from isthmus.connectors import LinearConfig
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, Source, SourceConfig
from isthmus.encoders import VisionEncoder
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.model import Model
from isthmus.train.stage import AdamW, Cosine, Stage

COLOURS = ("red", "green", "blue", "white")


@dataclass(frozen=True, kw_only=True)
class Swatch:
    """A picture of one colour; broken ones cannot be loaded."""

    colour: str
    number: int
    broken: bool = False

    @property
    def key(self) -> str:
        return f"swatch {self.colour} {self.number} {self.broken}"

    def load(self) -> Image.Image:
        if self.broken:
            raise ValueError(f"Image swatch {self.number} is cut short.")
        return Image.new("RGB", (24, 16 + self.number % 3), self.colour)


@dataclass(frozen=True, kw_only=True)
class Swatches(SourceConfig):
    """`num` samples; each `text_every`-th has no image, those in `broken` have one that cannot be loaded."""

    num: int = 24
    text_every: int = 0
    broken: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    """Those whose answer is `blank`."""
    blank: str = " "
    first: int = 0
    long: tuple[int, ...] = ()
    """Those whose question is longer than the language model takes."""

    def build(self) -> Dataset:
        return SwatchSamples(self)


class SwatchSamples:
    def __init__(self, config: Swatches) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.num

    def __getitem__(self, index: int) -> Sample:
        number = index + self.config.first
        colour = COLOURS[number % len(COLOURS)]
        blind = bool(self.config.text_every) and index % self.config.text_every == 0
        told = colour if number % 2 else f"It is {colour}"
        asked = f"What colour is {number}?" * (10 if index in self.config.long else 1)
        turns = (
            Turn(role="user", text=f"{'' if blind else IMAGE_MARK}{asked}"),
            Turn(role="assistant", text=self.config.blank if index in self.config.empty else told),
        )
        image = Swatch(colour=colour, number=number, broken=index in self.config.broken)
        return Sample(id=f"swatch/{number}", turns=turns, images=() if blind else (image,))


def save_eye(root: Path, blocks: int = 1) -> str:
    """A CLIP-style tower over 16 x 16 pixels: a 2 x 2 grid of patches, 16 wide."""
    folder = root / ("eye" if blocks == 1 else f"eye{blocks}")
    if not folder.is_dir():
        torch.manual_seed(3)
        config = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=blocks,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
            attention_dropout=0.0,
        )
        CLIPVisionModel(config).save_pretrained(folder)
        CLIPImageProcessor(size=16, crop_size=16).save_pretrained(folder)
    return str(folder)


def tiny_model(root: Path, family: str = "llama") -> Model:
    kind = EncoderDecoderLM if family == "t5" else CausalLM
    return Model(
        encoder=VisionEncoder(name=save_eye(root), image_size=16),
        connector=LinearConfig(),
        llm=kind(name=save_model(family, root), max_tokens=96),
    )


def tiny_stage(root: Path, family: str = "llama", **changes: Any) -> Stage:
    stage = Stage(
        name="tiny",
        model=tiny_model(root, family),
        train=("connector",),
        data=(Source(of=Swatches()),),
        validation=(Source(of=Swatches(num=6, first=100)),),
        optimizer=AdamW(peak_lr=3e-3, weight_decay=0.01),
        schedule=Cosine(warmup_fraction=0.1),
        batch_size=4,
        steps=12,
        log_every=3,
        save_every=4,
        validate_every=6,
    )
    return replace(stage, **changes)
