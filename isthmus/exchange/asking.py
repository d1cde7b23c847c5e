"""A native class's processor, asked as its users ask it, and how far its pixels are from ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.data.sample import IMAGE_MARK, Sample
from isthmus.encoders.vision import VisionTower
from isthmus.exchange.templates import prompt_text
from isthmus.model import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class PixelGap:
    """How far a processor's pixels are from ours, in grey levels of 255."""

    mean: float
    largest: float

    def within(self, other: "PixelGap") -> bool:
        """Whether both are at most those of another."""
        return self.mean <= other.mean and self.largest <= other.largest


PIXEL_TOLERANCES = {"PIL": PixelGap(mean=0.01, largest=0.01), "torchvision": PixelGap(mean=0.4, largest=16.0)}
"""What a processor's pixels may be off in an image, by what resizes in it. We resize with PIL as well, so there it is
what float32 rounds. Torchvision rounds in another order: up to 0.15 on average and 3 at most in figures, 0.28 and 9 in
noise were measured, and 0.87 on average or more for another filter, 20 or more for another crop."""


class Asker:
    """A processor with the prompt style of the run that it goes out with."""

    def __init__(self, processor: Any, *, chats: bool, model: VisionLanguageModel) -> None:
        self.processor, self.chats = processor, chats
        self.prompt, self.tokenizer = model.config.prompt, model.llm.tokenizer

    def inputs(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Ids, masks and pixels as the processor makes them."""
        images = [sample.images[0].load() for sample in samples]
        questions = [sample.turns[0].text.removeprefix(f"{IMAGE_MARK}\n") for sample in samples]
        if not self.chats:
            texts = [prompt_text(self.prompt, question, self.tokenizer) for question in questions]
            return dict(self.processor(images=images, text=texts, return_tensors="pt", padding=True))
        talks = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
            for image, question in zip(images, questions, strict=True)
        ]
        options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
        return dict(self.processor.apply_chat_template(talks, processor_kwargs={"padding": True}, **options))

    def pixels(self, samples: Sequence[Sample]) -> Float[Tensor, "views 3 height width"]:
        """The processor's pixels as our encoder takes them: view after view, none of them filled up for a batch."""
        return torch.cat([self.inputs([sample])["pixel_values"].flatten(0, -4) for sample in samples])


def pixel_gap(asker: Asker, model: VisionLanguageModel, samples: Sequence[Sample], backend: str) -> PixelGap:
    """The distance of the processor's pixels from ours, in the worst of the samples' images.

    Raises:
        ValueError: other views of an image than ours, or a distance that `backend` does not round to: another resize,
            crop or normalisation.
    """
    assert isinstance(model.encoder, VisionTower), "a run that goes out is loaded with its encoder"
    levels = 255 * torch.tensor(model.encoder.normalisation.std)[:, None, None]
    allowed, gaps = PIXEL_TOLERANCES[backend], []
    for key, sample in {sample.images[0].key: sample for sample in samples}.items():
        mine, theirs = model.prepare([sample])[0], asker.pixels([sample])
        assert mine is not None
        if mine.shape != theirs.shape:
            raise ValueError(
                f"The class's processor makes pixels {tuple(theirs.shape)} of the image {key!r}, the run's encoder "
                f"{tuple(mine.shape)} (views, channels, height, width), so nothing was written."
            )
        apart = (theirs - mine).abs() * levels
        gap = PixelGap(mean=float(apart.mean()), largest=float(apart.max()))
        if not gap.within(allowed):
            raise ValueError(
                f"The class's processor makes other pixels than the run's encoder: of 255 grey levels they are "
                f"{gap.mean:.3g} apart on average and {gap.largest:.3g} at most in the image {key!r}, where {backend} "
                f"may round by {allowed.mean:g} and {allowed.largest:g}. It resizes, crops or normalises in another "
                f"way, so nothing was written."
            )
        gaps.append(gap)
    return PixelGap(mean=max(gap.mean for gap in gaps), largest=max(gap.largest for gap in gaps))
