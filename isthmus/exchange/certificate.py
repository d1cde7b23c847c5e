"""The proof that goes out with a model: the class and ours, asked the same about the same images, said the same."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from isthmus import __version__
from isthmus.data.collate import Batch
from isthmus.data.sample import IMAGE_MARK, ImageRef, Sample, Turn
from isthmus.exchange.asking import Asker, PixelGap
from isthmus.exchange.equality import Difference, differ, logits
from isthmus.llms import EncoderDecoderLM, Generation
from isthmus.model import VisionLanguageModel

QUESTIONS = ("What is in the picture?", "How many objects are there?")
CERTIFICATE_FILE = "isthmus_certificate.json"
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model says to one sample: token ids, logits at the end of the prompt, and the greedy writing."""

    ids: list[int]
    logits: Tensor
    writing: list[int]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How far the exported model and the run differ, on which images, with which software."""

    to: str
    class_name: str
    run: str
    images: tuple[str, ...]
    questions: tuple[str, ...]
    image_backend: str
    compared: tuple[str, ...]
    """What was compared: "ids", "logits", "writings"; with a processor also "pixels", the processor's with those of the
    run's encoder, and "batches" of writings padded on the left."""
    pixel_gap: PixelGap | None
    """How far the processor's pixels are from those of the run's encoder, in grey levels of 255; `None` without a
    processor. Ids, logits and writings are compared on one set of pixels: the processor's, where it is."""
    largest_logit: float
    logit_difference: float
    tolerance: float
    writings: tuple[str, ...]
    different: tuple[str, ...]
    """What differed, in words; empty when the model may go out."""
    isthmus: str = __version__
    transformers: str = transformers.__version__
    torch: str = torch.__version__

    def write(self, folder: Path) -> None:
        """Saves it beside the weights."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
        (folder / CERTIFICATE_FILE).write_text(text + "\n", encoding="utf-8")


def samples_of(images: Sequence[ImageRef], questions: Sequence[str]) -> list[Sample]:
    """Every question about every image."""
    return [
        Sample(
            id=f"{number}: {question}", turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),), images=(image,)
        )
        for number, image in enumerate(images)
        for question in questions
    ]


def ours(model: VisionLanguageModel, samples: Sequence[Sample], max_new_tokens: int, asker: Asker | None) -> list[Said]:
    """What our model says to each sample alone, of the pixels that a native processor makes, or without one its own."""
    return [_ours(model, batch_of(model, [sample], asker), max_new_tokens) for sample in samples]


def ours_together(
    model: VisionLanguageModel, samples: Sequence[Sample], max_new_tokens: int, asker: Asker
) -> list[list[int]]:
    """Greedy writings of one batch."""
    return _write(model, batch_of(model, samples, asker), max_new_tokens)


def compare(
    mine: Sequence[Said], theirs: Sequence[Said], names: Sequence[str], tolerance: float
) -> tuple[Difference, list[str]]:
    """The largest difference of logits with the largest logit of all, and all that differs by more than it may."""
    worst, wrong = Difference(difference=0.0, largest=0.0), []
    for one, other, name in zip(mine, theirs, names, strict=True):
        if len(one.ids) != len(other.ids) or one.ids != other.ids:
            wrong.append(f"{name}: the prompt's token ids differ ({len(one.ids)} against {len(other.ids)})")
            continue
        found = differ(one.logits, other.logits)
        worst = Difference(
            difference=max(worst.difference, found.difference), largest=max(worst.largest, found.largest)
        )
        if not found.within(tolerance):
            wrong.append(f"{name}: logits differ by {found.difference:.2g} of {found.largest:.2g}")
        if one.writing != other.writing:
            wrong.append(f"{name}: the greedy writings differ")
    return worst, wrong


def num_rows(model: VisionLanguageModel) -> int:
    """Rows of the output head: what the logits are over."""
    head: Any = model.llm.head
    return int(head.weight.shape[0])


class NativeSpeaker:
    """A native model with its processor, asked as its users ask it; `vocabulary` logits of it are compared."""

    def __init__(
        self, native: Any, asker: Asker, *, model: VisionLanguageModel, image_id: int, vocabulary: int
    ) -> None:
        self.native, self.asker = native, asker
        self.encodes = isinstance(model.config.llm, EncoderDecoderLM)
        self.vocabulary, self.image_id = vocabulary, image_id
        self.ends = model.llm.ends

    @torch.no_grad()
    def said(self, sample: Sample, max_new_tokens: int) -> Said:
        """What the class says to one sample."""
        given = self.asker.inputs([sample])
        more = {"decoder_input_ids": torch.full((1, 1), _start(self.native))} if self.encodes else {}
        scores = self.native(**given, **more).logits[0, -1, : self.vocabulary]
        ids = [-1 if one == self.image_id else one for one in given["input_ids"][0].tolist()]
        return Said(ids=ids, logits=scores, writing=self.written([sample], max_new_tokens)[0])

    @torch.no_grad()
    def written(self, samples: Sequence[Sample], max_new_tokens: int) -> list[list[int]]:
        """Greedy writings of one batch, padded as the processor pads."""
        given = self.asker.inputs(samples)
        ids = self.native.generate(**given, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        fresh = ids[:, 1:] if self.encodes else ids[:, given["input_ids"].shape[1] :]
        return [_until(row, self.ends) for row in fresh.tolist()]


def _start(native: Any) -> int:
    return int(native.generation_config.decoder_start_token_id)


def batch_of(model: VisionLanguageModel, samples: Sequence[Sample], asker: Asker | None) -> Batch:
    """The samples as our model reads them, with a native processor's pixels where there is one."""
    pixels, plans = model.prepare(samples)
    if asker is not None:
        pixels = asker.pixels(samples)
    return model.config.batch(samples, tokenizer=model.llm.tokenizer, plans=plans, pixels=pixels, for_generation=True)


def _ours(model: VisionLanguageModel, batch: Batch, max_new_tokens: int) -> Said:
    start = None
    if isinstance(model.config.llm, EncoderDecoderLM):
        start = torch.full((1, 1), int(model.llm.model.config.decoder_start_token_id))  # type: ignore[union-attr, arg-type]
    scores = logits(model, batch, start)[0, -1]
    ids = batch.ids.masked_fill(batch.visual, -1)[0].tolist()
    return Said(ids=ids, logits=scores, writing=_write(model, batch, max_new_tokens)[0])


@torch.no_grad()
def _write(model: VisionLanguageModel, batch: Batch, max_new_tokens: int) -> list[list[int]]:
    placed = model._placed(batch)
    embedded = model.embed(batch, placed)
    model._open_door(batch, placed)
    return model.llm.generate(embedded, batch.ids, batch.mask, Generation(max_new_tokens=max_new_tokens))


def _until(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    return next((ids[:place] for place, one in enumerate(ids) if one in ends), ids)
