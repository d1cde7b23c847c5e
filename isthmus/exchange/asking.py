"""A native class's processor, asked as its users ask it, and how far its pixels are from ours."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.data.sample import IMAGE_MARK, Sample
from isthmus.encoders.vision import VisionTower
from isthmus.exchange.templates import prompt_text
from isthmus.model import VisionLanguageModel

PIXEL_TOLERANCES = {"PIL": 0.01, "torchvision": 2.0}
"""Grey levels of 255 that a processor's pixels may be off, by what resizes in it. We resize with PIL as well, so there
it is what float32 rounds; torchvision interpolates with weights and steps of its own, each rounded to a level."""


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


def pixel_gap(asker: Asker, model: VisionLanguageModel, samples: Sequence[Sample], backend: str) -> float:
    """The largest distance of the processor's pixels from ours, in grey levels of 255.

    Raises:
        ValueError: other views of an image than ours, or a distance that `backend` does not round to: another resize,
            crop or normalisation.
    """
    assert isinstance(model.encoder, VisionTower), "a run that goes out is loaded with its encoder"
    levels = 255 * torch.tensor(model.encoder.normalisation.std)[:, None, None]
    largest = 0.0
    for sample in {sample.images[0].key: sample for sample in samples}.values():
        mine, theirs = model.prepare([sample])[0], asker.pixels([sample])
        assert mine is not None
        if mine.shape != theirs.shape:
            raise ValueError(
                f"The class's processor makes pixels {tuple(theirs.shape)} of the image {sample.images[0].key!r}, the "
                f"run's encoder {tuple(mine.shape)} (views, channels, height, width), so nothing was written."
            )
        gap = float(((theirs - mine).abs() * levels).max())
        if not gap <= PIXEL_TOLERANCES[backend]:
            raise ValueError(
                f"The class's processor makes other pixels than the run's encoder: {gap:.3g} of 255 grey levels off "
                f"in the image {sample.images[0].key!r}, where {backend} may round by {PIXEL_TOLERANCES[backend]:g}. "
                f"It resizes, crops or normalises in another way, so nothing was written."
            )
        largest = max(largest, gap)
    return largest
