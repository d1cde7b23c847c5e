"""Samples to one padded batch: ids, image places, labels, and which image belongs to which row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.data.captions import CaptionStyle, captions_of
from isthmus.data.instructions import ReadText
from isthmus.data.sample import Sample
from isthmus.data.tokens import IGNORED, Encoded, Writing, encode, placeholder
from isthmus.features import BranchName, Captions, Features, Plan, Text


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of one branch of a model: their features, or pixels for its encoder. Empty when it has none."""

    features: Features | None = None
    pixels: Float[Tensor, "views *steps channels height width"] | None = None


NO_VIEWS: Mapping[BranchName, Views] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the model reads: padded rows (right in training, left for generation), and inputs packed in row order.

    `visual` marks the places of images, videos and sounds, in row-major order those of `plans`; `owner[i]` is the row
    of input `i`. `features` or `pixels` are the views of the image branch, `others` those of the other branches.
    `labels` are -100 where nothing is supervised; for an encoder-decoder `decoder_labels` hold the targets.
    """

    ids: Int[Tensor, "rows length"]
    mask: Bool[Tensor, "rows length"]
    labels: Int[Tensor, "rows length"]
    visual: Bool[Tensor, "rows length"]
    plans: tuple[Plan, ...]
    owner: tuple[int, ...]
    sample_ids: tuple[str, ...]
    features: Features | None = None
    pixels: Float[Tensor, "views *steps channels height width"] | None = None
    others: Mapping[BranchName, Views] = field(default_factory=dict)
    decoder_labels: Int[Tensor, "rows targets"] | None = None
    text: Text | None = None
    captions: Captions | None = None
    """In place of prompts: what a connector is trained on without a language model."""
    num_cut: int = 0
    """How many samples lost text or turns because they were too long."""

    def view_text(self) -> Text | None:
        """The row of text of every view of the image branch: all images of a row read the same."""
        if self.text is None:
            return None
        owned = zip(self.plans, self.owner, strict=True)
        rows = [row for plan, row in owned if plan.branch == "image" for _ in plan.views]
        index = torch.tensor(rows, dtype=torch.long, device=self.text.ids.device)
        return Text(ids=self.text.ids[index], mask=self.text.mask[index])

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        text, features = self.text, self.features
        own = _moved_views(Views(features=features, pixels=self.pixels), device)
        return replace(
            self,
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            labels=self.labels.to(device),
            visual=self.visual.to(device),
            pixels=own.pixels,
            others={name: _moved_views(views, device) for name, views in self.others.items()},
            decoder_labels=None if self.decoder_labels is None else self.decoder_labels.to(device),
            text=None if text is None else Text(ids=text.ids.to(device), mask=text.mask.to(device)),
            features=own.features,
            captions=None if self.captions is None else _moved(self.captions, device),
        )


def collate(
    samples: Sequence[Sample],
    *,
    writing: Writing,
    count_tokens: Callable[[Plan], int],
    plans: Sequence[Plan],
    views: Mapping[BranchName, Views] = NO_VIEWS,
    read_text: ReadText | None = None,
) -> Batch:
    """One batch of samples; `plans` are those of all their inputs in order, `views` what each branch sees of them.

    A branch without views is counted by its plans alone, for prompts whose tokens stand elsewhere or are only shown.

    `read_text` makes the text of a connector that reads some.

    Inputs of dropped turns leave `plans` and the views too.

    Raises:
        ValueError: the plans do not match the images, a sample does not fit, or (in training) has no supervised token.
    """
    expected = sum(len(sample.inputs) for sample in samples)
    if expected != len(plans):
        raise ValueError(f"A batch of {expected} images came with {len(plans)} plans. Give one plan for each image.")
    encoded: list[Encoded] = []
    kept: list[int] = []
    owner: list[int] = []
    first = 0
    for row, sample in enumerate(samples):
        own = range(first, first + len(sample.inputs))
        counts = [count_tokens(plans[image]) for image in own]
        one = encode(sample, counts, writing)
        encoded.append(one)
        kept += own[: one.num_images]
        owner += [row] * one.num_images
        first += len(own)
    planned = {name: Views() for name in ("image", *(plan.branch for plan in plans))}
    chosen, seen = _choose_views([plans[image] for image in kept], {**planned, **views})
    return Batch(
        **_pad(encoded, writing),
        plans=chosen,
        owner=tuple(owner),
        sample_ids=tuple(sample.id for sample in samples),
        features=seen["image"].features,
        pixels=seen["image"].pixels,
        others={name: own for name, own in seen.items() if name != "image" and name in views},
        num_cut=sum(one.cut for one in encoded),
        text=None if read_text is None else read_text(samples, [one.num_exchanges for one in encoded]),
    )


def collate_captions(
    samples: Sequence[Sample],
    *,
    style: CaptionStyle,
    form: Literal["bert", "llama"],
    tokenizer: Any,
    plans: Sequence[Plan],
    features: Features | None = None,
    pixels: Float[Tensor, "views *steps channels height width"] | None = None,
) -> Batch:
    """One batch of images with a caption each, for training without a language model.

    Raises:
        ValueError: a sample without exactly one image of one view and one caption.
    """
    captions, num_cut = captions_of(samples, tokenizer=tokenizer, style=style, form=form)
    if len(plans) != len(samples) or any(len(plan.views) != 1 for plan in plans):
        raise ValueError(
            f"{len(samples)} captions came with {len(plans)} images of {[len(plan.views) for plan in plans]} views. "
            f"Aligning needs one view an image: use an encoder without tiles."
        )
    text = captions.match
    return Batch(
        ids=text.ids,
        mask=text.mask,
        labels=torch.full_like(text.ids, IGNORED),
        visual=torch.zeros_like(text.mask),
        plans=tuple(plans),
        owner=tuple(range(len(samples))),
        sample_ids=tuple(sample.id for sample in samples),
        features=features,
        pixels=pixels,
        captions=captions,
        num_cut=num_cut,
    )


def _pad(encoded: Sequence[Encoded], writing: Writing) -> dict[str, Any]:
    tokenizer, for_generation = writing.tokenizer, writing.for_generation
    left = for_generation and writing.kind == "causal"
    length = max(len(one.ids) for one in encoded)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else placeholder(tokenizer)
    rows: dict[str, list[list[Any]]] = {"ids": [], "mask": [], "labels": [], "visual": []}
    for one in encoded:
        blank = length - len(one.ids)
        for name, values, filler in (
            ("ids", one.ids, padding),
            ("mask", (True,) * len(one.ids), False),
            ("labels", one.labels, IGNORED),
            ("visual", one.visual, False),
        ):
            rows[name].append([*([filler] * blank), *values] if left else [*values, *([filler] * blank)])
    padded: dict[str, Any] = {name: torch.tensor(values) for name, values in rows.items()}
    if writing.kind == "encoder-decoder" and not for_generation:
        width = max(len(one.target) for one in encoded)
        targets = [[*one.target, *([IGNORED] * (width - len(one.target)))] for one in encoded]
        padded["decoder_labels"] = torch.tensor(targets)
    return padded


def _choose_views(
    plans: Sequence[Plan], views: Mapping[BranchName, Views]
) -> tuple[tuple[Plan, ...], dict[BranchName, Views]]:
    """Keep only the views of these plans, and number those of each branch anew from 0."""
    numbered: list[Plan] = []
    wanted: dict[BranchName, list[int]] = {name: [] for name in views}
    for plan in plans:
        mine = wanted[plan.branch]
        numbered.append(replace(plan, views=range(len(mine), len(mine) + len(plan.views))))
        mine += plan.views
    kept = {name: _rows_of(seen, wanted[name]) for name, seen in views.items()}
    return tuple(numbered), {name: seen for name, seen in kept.items() if name == "image" or wanted[name]}


def _rows_of(views: Views, wanted: Sequence[int]) -> Views:
    if not wanted:
        return Views()
    known = views.features.tokens if views.features is not None else views.pixels
    if known is None or wanted == list(range(len(known))):
        return views
    rows = torch.tensor(wanted)
    features, pixels = views.features, views.pixels
    return Views(
        features=None if features is None else _map_features(features, lambda tensor: tensor[rows]),
        pixels=None if pixels is None else pixels[rows],
    )


def _moved_views(views: Views, device: torch.device | str) -> Views:
    features, pixels = views.features, views.pixels
    return Views(
        features=None if features is None else _map_features(features, lambda tensor: tensor.to(device)),
        pixels=None if pixels is None else pixels.to(device),
    )


def _map_features(features: Features, change: Callable[[Tensor], Tensor]) -> Features:
    return replace(
        features,
        tokens=change(features.tokens),
        valid=None if features.valid is None else change(features.valid),
        levels=tuple(change(level) for level in features.levels),
    )


def _moved(captions: Captions, device: torch.device | str) -> Captions:
    def text(one: Text) -> Text:
        return Text(ids=one.ids.to(device), mask=one.mask.to(device))

    lacking = captions.negatives_empty
    return Captions(
        contrast=text(captions.contrast),
        match=text(captions.match),
        write=text(captions.write),
        targets=captions.targets.to(device),
        image_ids=captions.image_ids.to(device),
        empty=captions.empty.to(device),
        negatives=None if captions.negatives is None else text(captions.negatives),
        negatives_empty=None if lacking is None else lacking.to(device),
    )
