"""Retrieval both ways over a gallery: compare all images with all texts, then judge the best again together.

Source: BLIP-2 (arXiv:2301.12597), section 4.4; salesforce/LAVIS `compute_sim_matrix` of `blip2_qformer.py`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.connectors.reading import Vectors
from isthmus.data.captions import caption_of, captions_of
from isthmus.data.sample import ImageRef, Sample
from isthmus.evaluate.runner import device_of
from isthmus.evaluate.sight import SeesImages
from isthmus.features import Captions, Features, Text
from isthmus.model import VisionLanguageModel

RANKS = (1, 5, 10)
NOT_JUDGED = -100.0
"""The score of a pair that was not among the best; every judged pair is above it."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Different images, different texts, and which belong together."""

    images: tuple[ImageRef, ...]
    texts: tuple[Sample, ...]
    """One sample a text, with its caption."""
    belongs: Bool[Tensor, "images texts"]

    @property
    def chance(self) -> float:
        """R@1 of blind guesses, the mean over all queries of both ways."""
        right = self.belongs.double()
        return float(torch.cat([right.mean(dim=1), right.mean(dim=0)]).mean())


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of queries with a right answer among the first 1, 5, 10; `to_text`: images asked, texts answered."""

    to_text: tuple[float, ...]
    to_image: tuple[float, ...]
    num_images: int
    num_texts: int

    @property
    def chance(self) -> float:
        """R@1 of a blind guess for an image, where every text belongs to one."""
        return 1.0 / max(1, self.num_images)


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Scores of every image with every text, by comparison alone and judged again, with their recalls."""

    compared: Float[Tensor, "images texts"]
    to_text: Float[Tensor, "images texts"]
    to_image: Float[Tensor, "images texts"]
    by_comparison: Recall
    judged: Recall
    num_judged: int


def make_gallery(samples: Sequence[Sample]) -> Gallery:
    """The gallery of samples with one image and one caption each; equal images and equal texts count once.

    Raises:
        ValueError: no samples, or one without exactly one image and one caption.
    """
    images: dict[str, int] = {}
    texts: dict[str, int] = {}
    pairs = [
        (images.setdefault(one.images[0].key, len(images)), texts.setdefault(text, len(texts)))
        for one, text in ((one, caption_of(one)) for one in samples)
    ]
    if not pairs:
        raise ValueError("A gallery needs one sample at least.")
    belongs = torch.zeros(len(images), len(texts), dtype=torch.bool)
    belongs[tuple(torch.tensor(pairs).T)] = True
    shown = {one.images[0].key: one.images[0] for one in samples}
    told = {caption_of(one): one for one in samples}
    return Gallery(
        images=tuple(shown[key] for key in images), texts=tuple(told[text] for text in texts), belongs=belongs
    )


@torch.inference_mode()
def retrieve_both_ways(
    model: VisionLanguageModel,
    gallery: Gallery,
    *,
    encoder: SeesImages,
    k: int = 128,
    batch_size: int = 32,
    vectors: Vectors = "queries",
    wanted: Bool[Tensor, "images texts"] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Retrieved:
    """Recalls of a model with llm=None over a gallery.

    The score of a pair is its similarity (no temperature); for the `k` best texts of an image and the `k` best images
    of a text, the matching logit is added, and all others stay behind them. Each image is looked at twice, to be
    compared and to be judged, and a pair among the best of both ways is judged once. `wanted` judges these pairs in
    place of the best. `k=0` judges nothing. `vectors` is what stands for an image; of a run, `Run.vectors`.

    Raises:
        ValueError: the model has a language model, or its connector reads no text.
    """
    if model.config.llm is not None or not model.config.connector.aligns:
        raise ValueError("Comparing images with texts needs a model with llm=None whose connector has its heads.")
    captions = _captions(model, gallery)
    seen = _images(model, gallery, encoder, batch_size, vectors)
    told = _texts(model, captions, batch_size)
    similar = torch.stack([(vectors @ told.T).amax(dim=0) for vectors in seen])
    best = (_best(similar, k, dim=1), _best(similar, k, dim=0))
    for_images, for_texts = best if wanted is None or k == 0 else (wanted, wanted)
    logits = _judge(model, gallery, captions, for_images | for_texts, encoder, batch_size, on_progress)
    to_text = torch.where(for_images, similar + logits, NOT_JUDGED) if k else similar
    to_image = torch.where(for_texts, similar + logits, NOT_JUDGED) if k else similar
    return Retrieved(
        compared=similar,
        to_text=to_text,
        to_image=to_image,
        by_comparison=recall(similar, similar, gallery.belongs),
        judged=recall(to_text, to_image, gallery.belongs),
        num_judged=int((for_images | for_texts).sum()),
    )


def recall(
    to_text: Float[Tensor, "images texts"],
    to_image: Float[Tensor, "images texts"],
    belongs: Bool[Tensor, "images texts"],
) -> Recall:
    """Recalls of two score matrices. Of equal scores the wrong ones count as better, so a constant scores 0."""

    def at(scores: Tensor, right: Tensor) -> tuple[float, ...]:
        ahead = wrong_ahead(scores, right)
        return tuple(float((ahead < rank).float().mean()) for rank in RANKS)

    return Recall(
        to_text=at(to_text, belongs),
        to_image=at(to_image.T, belongs.T),
        num_images=belongs.shape[0],
        num_texts=belongs.shape[1],
    )


def wrong_ahead(
    scores: Float[Tensor, "queries answers"], right: Bool[Tensor, "queries answers"]
) -> Int[Tensor, " queries"]:
    """For each query how many wrong answers score as high as its best right one, or higher: 0 is found at rank 1."""
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~right).sum(dim=1)


def _captions(model: VisionLanguageModel, gallery: Gallery) -> Captions:
    form = model.config.connector.captions
    assert form != "none", "connectors that align read text"
    made, _ = captions_of(gallery.texts, tokenizer=model.tokenizer, style=model.config.captions, form=form)
    return made


def _images(
    model: VisionLanguageModel, gallery: Gallery, encoder: SeesImages, batch_size: int, vectors: Vectors
) -> Tensor:
    parts = [
        model.connector.reading(_features(model, gallery, encoder, rows), None).images(vectors)
        for rows in _chunks(range(len(gallery.images)), batch_size)
    ]
    return torch.cat(parts).float().cpu()


def _texts(model: VisionLanguageModel, captions: Captions, batch_size: int) -> Tensor:
    device = device_of(model)
    parts = []
    for rows in _chunks(range(len(captions.image_ids)), batch_size):
        text = _rows(captions.contrast, torch.tensor(rows), device)
        told = Captions(
            contrast=text,
            match=text,
            write=text,
            targets=text.ids,
            image_ids=captions.image_ids[rows].to(device),
            empty=captions.empty[rows].to(device),
        )
        parts.append(model.connector.reading(None, told).texts())
    return torch.cat(parts).float().cpu()


def _best(similar: Tensor, k: int, dim: int) -> Tensor:
    """True at the k largest along an axis."""
    chosen = torch.zeros_like(similar, dtype=torch.bool)
    return chosen.scatter(dim, similar.topk(min(k, similar.shape[dim]), dim=dim).indices, True)


def _judge(
    model: VisionLanguageModel,
    gallery: Gallery,
    captions: Captions,
    wanted: Tensor,
    encoder: SeesImages,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> Tensor:
    """The matching logit of every wanted pair, 0 elsewhere."""
    logits = torch.zeros(wanted.shape)
    device = device_of(model)
    for rows in _chunks(range(len(gallery.images)), batch_size):
        pairs = wanted[rows].nonzero()
        if len(pairs):
            reading = model.connector.reading(_features(model, gallery, encoder, rows), None)
            for some in torch.split(pairs, batch_size):
                text = _rows(captions.match, some[:, 1], device)
                judged = reading.match(text, some[:, 0].tolist(), None)[:, 1].float().cpu()
                logits[some[:, 0] + rows[0], some[:, 1]] = judged
        if on_progress is not None:
            on_progress(rows[-1] + 1, len(gallery.images))
    return logits


def _features(model: VisionLanguageModel, gallery: Gallery, encoder: SeesImages, rows: Sequence[int]) -> Features:
    features, plans = encoder.features([gallery.images[row] for row in rows])
    if any(len(plan.views) != 1 for plan in plans):
        raise ValueError("A gallery needs one view an image: use an encoder without tiles.")
    device, valid = device_of(model), features.valid
    return dataclasses.replace(
        features, tokens=features.tokens.to(device), valid=None if valid is None else valid.to(device)
    )


def _rows(text: Text, rows: Tensor, device: torch.device) -> Text:
    mask = text.mask[rows]
    length = int(mask.sum(dim=1).max())
    return Text(ids=text.ids[rows, :length].to(device), mask=mask[:, :length].to(device))


def _chunks(values: range, size: int) -> Iterator[list[int]]:
    return (list(values[first : first + size]) for first in range(0, len(values), size))
