"""Ask a model every question once, quickly, and score what it says.

Equal prompts (same text, same picture under the control) are answered once; batches are sorted by length, so little is
padded; a frozen encoder's features come from the cache.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import torch

from isthmus.branches import inputs_of, look
from isthmus.data.sample import ImageRef, Sample, SoundRef, VideoRef
from isthmus.encoders import Encoder, ImageSource
from isthmus.evaluate.answers import Metric, compared, first_answer, score
from isthmus.evaluate.blank import blanked
from isthmus.evaluate.levels import question_of
from isthmus.evaluate.record import Answer, Control
from isthmus.evaluate.sight import SeesImages, Sight, Unkept, mean_view
from isthmus.features import BranchName
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel

SHORT = Generation(max_new_tokens=8)
"""Enough for the bundled benchmarks' answers."""

Progress = Callable[[int, int], None]
Key = tuple[str, tuple[str, ...]]
Sights = dict[BranchName, Sight | Encoder]
"""What every branch of the model sees with."""


def shuffled(items: Sequence[Sample], seed: int) -> list[Sample]:
    """The same questions, each over another item's images: no item keeps a picture of its own where that is possible.

    Items exchange images, videos and sounds with items that have as many, so every prompt keeps its places.
    """
    draw = random.Random(seed)
    moved = list(items)
    for number in sorted({_counts(item) for item in items}):
        alike = [index for index, item in enumerate(items) if _counts(item) == number]
        draw.shuffle(alike)
        alike.sort(key=lambda index: _shown(items[index]))
        shift = max((_run_length(items, alike)), 1)
        for place, index in enumerate(alike):
            other = alike[(place + shift) % len(alike)]
            theirs = items[other]
            moved[index] = dataclasses.replace(
                items[index], images=theirs.images, videos=theirs.videos, sounds=theirs.sounds
            )
    return moved


def _counts(item: Sample) -> tuple[int, int, int]:
    return len(item.images), len(item.videos), len(item.sounds)


def _shown(item: Sample) -> tuple[str, ...]:
    refs: tuple[ImageRef | VideoRef | SoundRef, ...] = (*item.images, *item.videos, *item.sounds)
    return tuple(ref.key for ref in refs)


def _run_length(items: Sequence[Sample], order: Sequence[int]) -> int:
    """The longest run of equal images in this order: shifting by it leaves nobody with their own."""
    keys = [_shown(items[index]) for index in order]
    return max((keys.count(key) for key in set(keys)), default=0)


def evaluate(
    model: VisionLanguageModel,
    items: Sequence[Sample],
    *,
    encoder: SeesImages,
    batch_size: int = 32,
    generation: Generation = SHORT,
    control: Control = "none",
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[Answer]:
    """Answers to all items, in their order.

    `encoder` gives the pictures' features: a `CachedEncoder` of the model's frozen encoder, or its `OwnEncoder`.
    `control` says what the model is shown instead of each item's image (see `Control`); under "mean-image" and
    "text-only" every unique question is asked once. `seed` is the shuffle's.

    Raises:
        ValueError: an item without `meta["answers"]`, or a prompt that does not fit the model.
    """
    seen = list(items)
    if control == "shuffled":
        seen = shuffled(items, seed)
    elif control == "text-only":
        seen = [blanked(item) for item in items]
    sights = sights_of(model, items, encoder, control)
    unique: dict[Key, Sample] = {}
    keys = [_key(item, control) for item in seen]
    for key, item in zip(keys, seen, strict=True):
        unique.setdefault(key, item)
    said: dict[Key, tuple[str, str]] = {}
    for batch in _batches(unique, batch_size):
        asked = [unique[key] for key in batch]
        said.update(zip(batch, _ask(model, asked, sights, _long_enough(generation, asked)), strict=True))
        if on_progress is not None:
            on_progress(len(said), len(unique))
    return [_scored(item, control, *said[key]) for item, key in zip(items, keys, strict=True)]


def _key(item: Sample, control: Control) -> Key:
    pictures = tuple("mean" if control == "mean-image" else ref.key for _, ref in item.inputs)
    return "\x00".join(f"{turn.role}:{turn.text}" for turn in item.turns if turn.role != "assistant"), pictures


def _batches(unique: dict[Key, Sample], batch_size: int) -> Iterator[list[Key]]:
    ordered = sorted(unique, key=lambda key: (len(key[1]), len(key[0]), key))
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size]


def _long_enough(generation: Generation, items: Sequence[Sample]) -> Generation:
    """The options with room for the longest answer that an item says it takes (`meta["answer_tokens"]`)."""
    longest = max(int(item.meta.get("answer_tokens", 0)) for item in items)
    return dataclasses.replace(generation, max_new_tokens=max(generation.max_new_tokens, longest))


def sights_of(model: VisionLanguageModel, items: Sequence[Sample], encoder: SeesImages, control: Control) -> Sights:
    """What each branch sees with; under "mean-image" the mean of what the items show it, of clips and sounds too.

    Raises:
        ValueError: items for a branch whose encoder was left out (they would be seen by another, or not at all).
    """
    sights: Sights = {name: parts.encoder for name, parts in model.branches.items() if parts.encoder is not None}
    for name in model.branches.keys() - sights.keys():
        if any(kind == name for item in items for kind, _ in item.inputs):
            model.branches[name].built_encoder()
    sights["image"] = Sight(encoder=encoder)
    if control != "mean-image":
        return sights
    shown: dict[BranchName, list[ImageSource]] = {}
    for item in items:
        for name, ref in inputs_of(item, sights, tile_several=model.config.encoder.tiles_several()):
            shown.setdefault(name, []).append(ref)
    for name, refs in shown.items():
        own = sights[name]
        sees: SeesImages = Unkept(encoder=own, device=device_of(model)) if isinstance(own, Encoder) else encoder
        sights[name] = Sight(encoder=sees, mean=mean_view(sees, refs))
    return sights


def _ask(
    model: VisionLanguageModel, items: Sequence[Sample], sights: Sights, generation: Generation
) -> list[tuple[str, str]]:
    """The prompt and the answer of each item."""
    seen = look(items, sights, tile_several=model.config.encoder.tiles_several())
    device = device_of(model)
    batch = model.config.batch(
        items,
        tokenizer=model.llm.tokenizer,
        plans=seen.plans,
        features=seen.image.features,
        others=seen.others,
        for_generation=True,
    )
    with torch.inference_mode():
        texts = model.generate(batch.to(device), generation)
    return [(_prompt(model, item), first_answer(text)) for item, text in zip(items, texts, strict=True)]


def device_of(model: VisionLanguageModel) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def _prompt(model: VisionLanguageModel, item: Sample) -> str:
    segments = model.config.prompt.render(item, model.llm.tokenizer, for_generation=True)
    return "".join("<image>" if segment.image else segment.text for segment in segments)


def _scored(item: Sample, control: Control, prompt: str, prediction: str) -> Answer:
    answers = tuple(str(answer) for answer in item.meta.get("answers", ()))
    metric: Metric = item.meta.get("metric", "exact")
    earned = score(prediction, answers, metric)
    given, wanted = compared(prediction, answers, metric)
    return Answer(
        item=item.id,
        family=str(item.meta.get("family", "")),
        group=str(item.meta.get("group", item.id)),
        control=control,
        prompt=prompt or question_of(item),
        prediction=prediction,
        answers=answers,
        score=earned,
        compared=given,
        compared_with=wanted,
    )
