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
from isthmus.exchange.equality import Difference, differ, logits
from isthmus.exchange.templates import prompt_text
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
    """What was compared: "ids", "pixels", "logits", "writings", or "batches" of writings padded on the left."""
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


def ours(model: VisionLanguageModel, samples: Sequence[Sample], max_new_tokens: int) -> list[Said]:
    """What our model says to each sample alone."""
    return [_ours(model, _batch(model, [sample]), max_new_tokens) for sample in samples]


def ours_together(model: VisionLanguageModel, samples: Sequence[Sample], max_new_tokens: int) -> list[list[int]]:
    """Greedy writings of one batch."""
    return _write(model, _batch(model, samples), max_new_tokens)


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
    """A native model with its processor, asked as its users ask it."""

    def __init__(self, native: Any, processor: Any, *, chats: bool, model: VisionLanguageModel, image_id: int) -> None:
        self.native, self.processor, self.chats = native, processor, chats
        self.prompt, self.tokenizer = model.config.prompt, model.llm.tokenizer
        self.encodes = isinstance(model.config.llm, EncoderDecoderLM)
        self.vocabulary = num_rows(model)
        self.image_id = image_id
        self.ends = model.llm.ends

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

    @torch.no_grad()
    def said(self, sample: Sample, max_new_tokens: int) -> Said:
        """What the class says to one sample."""
        given = self.inputs([sample])
        more = {"decoder_input_ids": torch.full((1, 1), _start(self.native))} if self.encodes else {}
        scores = self.native(**given, **more).logits[0, -1, : self.vocabulary]
        ids = [-1 if one == self.image_id else one for one in given["input_ids"][0].tolist()]
        return Said(ids=ids, logits=scores, writing=self.written([sample], max_new_tokens)[0])

    @torch.no_grad()
    def written(self, samples: Sequence[Sample], max_new_tokens: int) -> list[list[int]]:
        """Greedy writings of one batch, padded as the processor pads."""
        given = self.inputs(samples)
        ids = self.native.generate(**given, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        fresh = ids[:, 1:] if self.encodes else ids[:, given["input_ids"].shape[1] :]
        return [_until(row, self.ends) for row in fresh.tolist()]


def _start(native: Any) -> int:
    return int(native.generation_config.decoder_start_token_id)


def _batch(model: VisionLanguageModel, samples: Sequence[Sample]) -> Batch:
    pixels, plans = model.prepare(samples)
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
