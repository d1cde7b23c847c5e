"""A run goes out as a folder of a native class, after the class said what our model says on real images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor

from isthmus.adapters import merge_lora
from isthmus.connectors.arrange import Anyres
from isthmus.data.sample import IMAGE_MARK, ImageRef, Sample
from isthmus.encoders import EncoderConfig, VisionEncoder
from isthmus.encoders.tiles import DynamicTiles
from isthmus.exchange import certificate
from isthmus.exchange.asking import Asker, PixelGap, pixel_gap
from isthmus.exchange.certificate import CERTIFICATE_FILE, QUESTIONS, Certificate, NativeSpeaker, samples_of
from isthmus.exchange.folders import write_whole_folder
from isthmus.exchange.goals import find_goal
from isthmus.exchange.importing import load_native
from isthmus.exchange.outgoing import Goal
from isthmus.exchange.processors import add_image_token, image_backend, make_room, own_tokenizer
from isthmus.exchange.templates import prompt_text
from isthmus.model import Model, VisionLanguageModel
from isthmus.runs import Run
from isthmus.weights import quiet_transformers

NEW_TOKENS = 16
"""Length of the greedy writings that are compared."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The folder that was written, its certificate, and what its users should know."""

    folder: Path
    certificate: Certificate
    notes: tuple[str, ...]


def export(
    run: Run,
    to: str,
    folder: Path,
    *,
    images: Sequence[ImageRef],
    questions: Sequence[str] = QUESTIONS,
    which: Literal["last", "best"] = "last",
) -> Exported:
    """Writes the run's model as a folder that `transformers` opens without our code, with processor and tokenizer.

    The folder is made beside its place, loaded from there as its users will, asked about the images, and only then
    given its name.

    Raises:
        ValueError: an unknown class, a model that the class cannot hold (with the nearest that can), no image, or a
            class that does not say what the run says.
    """
    goal = find_goal(to, run.model_config)
    if not images:
        raise ValueError("Export compares the class with the run on real images, so it needs one or more.")
    model = run.load_model(which=which)
    merge_lora(model)
    samples = samples_of(images, questions)
    ready = _Ready(goal, model)
    heard = _hear(model, samples, ready)
    made = _Made(ready, model)
    found: list[Certificate] = []

    def fill(partial: Path) -> None:
        made.save(partial)
        proof = _certify(made, model, partial, samples, heard, run=run, to=to, questions=tuple(questions))
        if proof.different:
            raise ValueError(
                f"{goal.class_name} does not say what {run.folder} says, so nothing was written: "
                f"{'; '.join(proof.different[:4])}."
            )
        proof.write(partial)
        found.append(proof)

    write_whole_folder(folder, fill)
    return Exported(folder=folder, certificate=found[0], notes=_notes(ready, model.config))


class _Ready:
    """The tokenizer of a native class with the image token, and its processor where that can be made here."""

    def __init__(self, goal: Goal, model: VisionLanguageModel) -> None:
        self.goal = goal
        self.tokenizer = own_tokenizer(model.config)
        self.image_id = add_image_token(self.tokenizer)
        self.processor = goal.processor(model, self.tokenizer)


class _Made:
    """The native model with its tokenizer and processor, sharing the weights of ours."""

    def __init__(self, ready: _Ready, model: VisionLanguageModel) -> None:
        self.goal, self.tokenizer, self.processor = ready.goal, ready.tokenizer, ready.processor
        self.image_id = ready.image_id
        self.vocabulary = certificate.num_rows(model)
        lm: Any = model.llm.model
        make_room(lm, max(self.vocabulary, len(self.tokenizer)))
        self.native = self.goal.make(model, self.image_id)
        added = sorted({self.image_id, *range(self.vocabulary, len(self.tokenizer))})
        self.native.generation_config = _generation_config(model, added)
        if hasattr(self.native, "language_model"):
            self.native.language_model.generation_config = self.native.generation_config

    def save(self, folder: Path) -> None:
        """Weights, config and, where it can be made here, the processor."""
        with quiet_transformers():
            self.native.save_pretrained(folder)
            (self.tokenizer if self.processor is None else self.processor).save_pretrained(folder)


def _generation_config(model: VisionLanguageModel, never: list[int]) -> Any:
    """The run's ends, and tokens that stand for images alone are never written."""
    own = model.llm.model.generation_config
    return transformers.GenerationConfig(
        eos_token_id=own.eos_token_id,  # type: ignore[union-attr]
        pad_token_id=own.pad_token_id,  # type: ignore[union-attr]
        bos_token_id=own.bos_token_id,  # type: ignore[union-attr]
        decoder_start_token_id=own.decoder_start_token_id,  # type: ignore[union-attr]
        suppress_tokens=never,
    )


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What our model said before its vocabulary got room for the image token."""

    alone: list[certificate.Said]
    together: list[list[int]]
    pixel_gap: PixelGap | None


def _hear(model: VisionLanguageModel, samples: list[Sample], ready: _Ready) -> _Heard:
    """On the pixels that the processor makes, once they are known to be near to our own."""
    if ready.processor is None:
        return _Heard(alone=certificate.ours(model, samples, NEW_TOKENS, None), together=[], pixel_gap=None)
    asker = Asker(ready.processor, chats=ready.goal.chats, model=model)
    gap = pixel_gap(asker, model, samples, image_backend())
    together: list[list[int]] = []
    for batch in _batches(samples, ready.goal):
        together += certificate.ours_together(model, batch, NEW_TOKENS, asker)
    return _Heard(alone=certificate.ours(model, samples, NEW_TOKENS, asker), together=together, pixel_gap=gap)


def _batches(samples: list[Sample], goal: Goal) -> list[list[Sample]]:
    """All at once; or by question, where the class's processor cannot pad questions of unequal length."""
    if goal.pads:
        return [samples]
    by_question: dict[str, list[Sample]] = {}
    for sample in samples:
        by_question.setdefault(sample.turns[0].text, []).append(sample)
    return list(by_question.values())


def _certify(
    made: _Made,
    model: VisionLanguageModel,
    folder: Path,
    samples: list[Sample],
    heard: _Heard,
    *,
    run: Run,
    to: str,
    questions: tuple[str, ...],
) -> Certificate:
    assert model.config.llm is not None
    native = load_native(folder, made.goal.class_name)
    compared = ["ids", "logits", "writings"]
    tolerance = certificate.TOLERANCES[model.config.llm.precision]
    names = [sample.id for sample in samples]
    if made.processor is None:
        speaker: Any = _PixelSpeaker(native, model, made, transformers.AutoTokenizer.from_pretrained(folder))
        theirs, wrong_together = [speaker.said(sample) for sample in samples], []
    else:
        asker = Asker(transformers.AutoProcessor.from_pretrained(folder), chats=made.goal.chats, model=model)
        speaker = NativeSpeaker(native, asker, model=model, image_id=made.image_id, vocabulary=made.vocabulary)
        theirs = [speaker.said(sample, NEW_TOKENS) for sample in samples]
        batches = _batches(samples, made.goal)
        written = [row for batch in batches for row in speaker.written(batch, NEW_TOKENS)]
        wrong_together = _together(written, heard.together, [one.id for batch in batches for one in batch])
        compared += ["pixels", "batches"]
    worst, wrong = certificate.compare(heard.alone, theirs, names, tolerance)
    if not math.isfinite(worst.difference):
        wrong.append("logits are not finite")
    return Certificate(
        to=to,
        class_name=made.goal.class_name,
        run=str(run.name),
        images=tuple(dict.fromkeys(sample.images[0].key for sample in samples)),
        questions=questions,
        image_backend=image_backend(),
        compared=tuple(compared),
        pixel_gap=heard.pixel_gap,
        largest_logit=worst.largest,
        logit_difference=worst.difference,
        tolerance=tolerance,
        writings=tuple(made.tokenizer.decode(one.writing, skip_special_tokens=True) for one in theirs),
        different=tuple(wrong + wrong_together),
    )


class _PixelSpeaker:
    """InternVL without its processor: it gets our pixels, and the ids that its tokenizer and chat template make."""

    def __init__(self, native: Any, model: VisionLanguageModel, made: _Made, tokenizer: Any) -> None:
        self.native, self.model, self.made, self.tokenizer = native, model, made, tokenizer

    @torch.no_grad()
    def said(self, sample: Sample) -> certificate.Said:
        """What the class says to one sample."""
        batch = certificate.batch_of(self.model, [sample], None)
        assert batch.pixels is not None
        ids = self._ids(sample, int(batch.visual.sum()))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": batch.pixels}
        scores = self.native(**given).logits[0, -1, : self.made.vocabulary]
        written = self.native.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :]
        return certificate.Said(
            ids=ids.masked_fill(ids == self.made.image_id, -1)[0].tolist(),
            logits=scores,
            writing=certificate._until(written.tolist(), self.model.llm.ends),
        )

    def _ids(self, sample: Sample, num_tokens: int) -> Tensor:
        """As the processor would write them: its tokens around as many image tokens as the image takes."""
        question = sample.turns[0].text.removeprefix(f"{IMAGE_MARK}\n")
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = self.tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        marks = f"{self.tokenizer.start_image_token}{IMAGE_MARK * num_tokens}{self.tokenizer.end_image_token}"
        given = self.tokenizer(text.replace(IMAGE_MARK, marks), add_special_tokens=False, return_tensors="pt")
        ids: Tensor = given["input_ids"]
        return ids


def _together(theirs: list[list[int]], mine: list[list[int]], names: list[str]) -> list[str]:
    return [
        f"{name}: the writings in a batch differ"
        for one, other, name in zip(mine, theirs, names, strict=True)
        if one != other
    ]


def _notes(ready: _Ready, model: Model) -> tuple[str, ...]:
    goal = ready.goal
    notes = [f"{CERTIFICATE_FILE} says what was compared, on which images, with which image backend."]
    if ready.processor is None:
        notes.append(
            f"Skipped: the processor of {goal.class_name} needs torchvision, which is not installed here. Weights, "
            f"config and the tokenizer with its chat template are written, and the class was compared on their ids and "
            f"our pixels; the certificate does not speak of the processor. Export where torchvision is to have it too."
        )
        if isinstance(model.encoder, VisionEncoder) and isinstance(model.encoder.tiles, DynamicTiles):
            tiles = model.encoder.tiles
            notes.append(
                f"The run cuts images: give the processor min_patches={tiles.min_tiles}, max_patches={tiles.max_tiles}."
            )
    elif not goal.chats:
        text = prompt_text(model.prompt, "...", None)
        notes.append(f"{goal.class_name} has no chat template: write the prompt yourself, as {text!r}.")
    if isinstance(model.arrange, Anyres):
        notes += _anyres_notes(goal, model.arrange, model.encoder)
    if not goal.pads:
        notes.append(
            f"The processor of {goal.class_name} pads its Q-Former's text on the side of the language model's, which "
            f"moves it: put questions of one length in a batch, or ask one at a time. Batches were compared so."
        )
    return tuple(notes)


def _anyres_notes(goal: Goal, arrange: Anyres, encoder: EncoderConfig) -> list[str]:
    """Where the class lays out tiles otherwise than the run, on pictures that were not compared."""
    notes = []
    if arrange.digits is None:
        notes.append(
            f"{goal.class_name} rounds to 7 digits before it cuts padding away, the run truncates at once "
            f"(digits=None): pictures of a few sizes, such as 352 x 836 px in tiles of 336 px, are two rows or columns "
            f"longer there. A run trained with --model.arrange.digits 7 has them equal."
        )
    if not encoder.tiles_several():
        notes.append(
            f"{goal.class_name} tiles every picture of a prompt, the run sees each of several as one view "
            f"(tile_several=False): give it one picture at a time."
        )
    return notes
