"""One look at a model in training, over one batch and without gradient: the signs that the doctor judges by.

Every sign is a plain number, so it can stand in a run's log. Nothing is drawn from torch's random state.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.connectors.reading import Reading, Vectors
from isthmus.data.collate import Batch
from isthmus.features import Captions, Features, Plan, Text
from isthmus.measure.signs import LookingEntropy, effective_rank, mean_cosine, share_distinct
from isthmus.model import Output, VisionLanguageModel

_SETS, _VECTORS, _TABLE = 16, 64, 4_096
"""Images, vectors an image, and rows of the embedding table that are looked at, at most."""


@torch.no_grad()
def check_up(model: VisionLanguageModel, batch: Batch, losses: Sequence[str]) -> dict[str, float]:
    """The signs of a model over a batch; `losses` names what it is trained with ("itc", "itm", "itg", "loss").

    The model is taken in the mode that it is in: put it in evaluation mode first.
    """
    if batch.captions is not None:
        return _alignment(model, batch, batch.captions, losses)
    return _language(model, batch)


def _alignment(model: VisionLanguageModel, batch: Batch, captions: Captions, losses: Sequence[str]) -> dict[str, float]:
    features = model.features(batch)
    signs = _feature_signs(features)
    reading: Reading = model.connector.reading(features, captions)
    with LookingEntropy(model.connector) as looking:
        images = reading.images(_compared(losses)).float()
    if looking.value is not None:
        signs["attention_entropy"] = looking.value
    if images.shape[1] > 1:
        signs |= token_signs(images, "query")
        signs["query_distinct"] = float(share_distinct(images[:_SETS]).mean())
    signs["image_cosine"] = float(mean_cosine(images.mean(dim=1)))
    negatives = _negatives(reading, images, captions.image_ids)
    if any(name.startswith("itc") for name in losses):
        signs["temperature"] = float(1 / reading.scale())
        different = captions.match.ids[:, None].ne(captions.match.ids[None]).any(dim=-1)
        if bool(different.any()):
            told = functional.normalize(reading.texts().float(), dim=-1)
            signs["text_cosine"] = float((told @ told.T)[different].mean())
    if "itm" in losses and len(negatives.rows):
        signs |= _matching_signs(reading, captions, negatives)
    if "itg" in losses and len(negatives.rows):
        signs["itg_image_gain"] = _writing_gain(model, reading, features, captions, negatives)
    return signs


def _compared(losses: Sequence[str]) -> Vectors:
    """What is compared with texts, by the names of the losses; of several kinds the queries, which are judged too."""
    kinds: dict[str, Vectors] = {"itc_features": "features", "itc_sum": "sum"}
    trained = [kinds.get(name, "queries") for name in losses if name.startswith("itc")]
    return trained[0] if len(trained) == 1 else "queries"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Negatives:
    """Rows that have another image and another text to be held against, and which."""

    rows: Int[Tensor, " kept"]
    images: Int[Tensor, " kept"]
    texts: Int[Tensor, " kept"]


def _negatives(
    reading: Reading, images: Float[Tensor, "rows vectors embedding"], image_ids: Int[Tensor, " rows"]
) -> _Negatives:
    """Drawn by the similarities, as in training, but never a caption of the same image, and always the same draw."""
    texts = reading.texts().float()
    similar = torch.einsum("rve,ne->rnv", images, texts).amax(dim=-1) * reading.scale().float()
    never = image_ids[:, None] == image_ids[None]
    rows = (~never).any(dim=1).nonzero()[:, 0]
    similar = torch.nan_to_num(similar, nan=0.0)
    draw = torch.Generator().manual_seed(0)
    drawn = [
        torch.multinomial(one.masked_fill(never, -torch.inf)[rows].softmax(dim=1).cpu(), 1, generator=draw)[:, 0]
        if len(rows)
        else rows.cpu()
        for one in (similar.T, similar)
    ]
    return _Negatives(rows=rows, images=drawn[0].to(rows.device), texts=drawn[1].to(rows.device))


def _matching_signs(reading: Reading, captions: Captions, negatives: _Negatives) -> dict[str, float]:
    """Accuracy by class, and how far the judgement moves when the text alone, or the image alone, is another."""
    own, rows = captions.match, negatives.rows
    chosen = torch.cat([rows, rows, negatives.texts])
    owner = torch.cat([rows, negatives.images, rows]).tolist()
    logits = reading.match(Text(ids=own.ids[chosen], mask=own.mask[chosen]), owner, None).float()
    right, image, text = (logits[:, 1] - logits[:, 0]).chunk(3)
    return {
        "itm_right_matches": float((right > 0).float().mean()),
        "itm_right_others": float((torch.cat([image, text]) < 0).float().mean()),
        "itm_by_image": float((right - image).abs().mean()),
        "itm_by_text": float((right - text).abs().mean()),
    }


def _writing_gain(
    model: VisionLanguageModel, reading: Reading, features: Features, captions: Captions, negatives: _Negatives
) -> float:
    """By how much the loss of a written token rises, in nats, when the image is another."""
    places = torch.arange(len(captions.image_ids), device=negatives.rows.device)
    places[negatives.rows] = negatives.images
    other: Reading = model.connector.reading(_chosen(features, places), captions)
    losses = [functional.cross_entropy(logits.float(), ids) for logits, ids in (reading.write(), other.write())]
    return float(losses[1] - losses[0])


def _language(model: VisionLanguageModel, batch: Batch) -> dict[str, float]:
    plans = [plan for plan in batch.plans if plan.branch == "image"]
    if not plans:
        return {}
    features = model.features(batch)
    signs = _feature_signs(features)
    seen = dataclasses.replace(batch, features=features, pixels=None)
    with LookingEntropy(model.connector) as looking:
        placed = model.see(features, plans, batch.view_text())
    if looking.value is not None:
        signs["attention_entropy"] = looking.value
    if placed.tokens.shape[0]:
        signs |= _norm_signs(model, placed.tokens)
        first = placed.lengths[0]
        alike = [
            one
            for one, n in zip(torch.split(placed.tokens, list(placed.lengths)), placed.lengths, strict=True)
            if n == first
        ]
        if first > 1:
            signs |= token_signs(torch.stack(alike), "visual")
    return signs | image_gain(model, seen, plans)


def image_gain(model: VisionLanguageModel, batch: Batch, plans: Sequence[Plan]) -> dict[str, float]:
    """By how much the loss rises, in nats a token, when rows get each other's images; with its standard error.

    Nothing where no two images of a batch differ.
    """
    assert batch.features is not None, "features are computed before images are exchanged"
    places, moved = exchanged(batch.features, plans)
    owners = [row for plan, row in zip(batch.plans, batch.owner, strict=True) if plan.branch == "image"]
    rows = sorted({row for row, is_moved in zip(owners, moved, strict=True) if is_moved})
    if not rows:
        return {}
    other = dataclasses.replace(batch, features=_chosen(batch.features, places))
    right, wrong = model(batch), model(other)
    gains = (_means(wrong, len(batch.ids)) - _means(right, len(batch.ids)))[rows]
    spread = float(gains.std()) / len(rows) ** 0.5 if len(rows) > 1 else float(gains.abs()[0])
    return {"image_gain": float(gains.mean()), "image_gain_error": spread, "image_gain_rows": float(len(rows))}


def exchanged(features: Features, plans: Sequence[Plan]) -> tuple[Int[Tensor, " views"], list[bool]]:
    """Feature rows with images of as many views exchanged, and which images then differ from their own."""
    places = torch.arange(len(features.tokens), device=features.tokens.device)
    sums = features.tokens.double().sum(dim=(1, 2)).tolist()
    moved = [False] * len(plans)
    for count in {len(plan.views) for plan in plans}:
        group = [number for number, plan in enumerate(plans) if len(plan.views) == count]
        keys = [tuple(sums[row] for row in plans[number].views) for number in group]
        turns = {shift: sum(a != b for a, b in zip(keys, keys[shift:] + keys[:shift], strict=True))
                 for shift in range(1, len(group))}  # fmt: skip
        if not turns:
            continue
        shift = max(turns, key=lambda one: turns[one])
        for place, number in enumerate(group):
            other = (place + shift) % len(group)
            theirs, ours = plans[group[other]].views, plans[number].views
            places[ours.start : ours.stop] = torch.arange(theirs.start, theirs.stop, device=places.device)
            moved[number] = keys[place] != keys[other]
    return places, moved


def _means(output: Output, rows: int) -> Float[Tensor, " rows"]:
    counts = torch.bincount(output.rows, minlength=rows).clamp(min=1)
    return output.row_losses(rows).float() / counts


def _norm_signs(model: VisionLanguageModel, tokens: Float[Tensor, "total width"]) -> dict[str, float]:
    """Median norms of visual tokens and of the embedding table's rows."""
    table = model.llm.model.get_input_embeddings()  # type: ignore[operator]
    step = max(1, len(table.weight) // _TABLE)
    text = model.llm.embed(torch.arange(0, len(table.weight), step, device=tokens.device)[None])[0]
    visual, words = (float(one.float().norm(dim=-1).median()) for one in (tokens, text))
    return {"visual_norm": visual, "word_norm": words}


def token_signs(vectors: Float[Tensor, "sets vectors width"], name: str) -> dict[str, float]:
    """Effective rank and mean cosine of an image's vectors; nothing of a single one, which is like no other."""
    some = vectors[:_SETS, :: max(1, vectors.shape[1] // _VECTORS)]
    if some.shape[1] < 2:
        return {}
    finite = bool(some.isfinite().all())
    rank = float(effective_rank(some).mean()) if finite else float("nan")
    return {f"{name}_rank": rank, f"{name}_cosine": float(mean_cosine(some).mean())}


def _feature_signs(features: Features) -> dict[str, float]:
    return {"feature_max": float(features.tokens.abs().max())}


def _chosen(features: Features, places: Int[Tensor, " views"]) -> Features:
    """The feature rows at these places."""
    valid: Bool[Tensor, "views patches"] | None = None if features.valid is None else features.valid[places]
    levels = tuple(level[places] for level in features.levels)
    return dataclasses.replace(features, tokens=features.tokens[places], valid=valid, levels=levels)
