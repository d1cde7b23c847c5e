"""Description to image: the candidate under which the language model finds the description likeliest is chosen."""

import dataclasses
from collections.abc import Sequence

import torch

from isthmus.data.sample import ImageRef, Sample, Turn
from isthmus.evaluate.record import Answer, Control
from isthmus.evaluate.runner import device_of
from isthmus.evaluate.sight import SeesImages
from isthmus.model import VisionLanguageModel


def retrieve(
    model: VisionLanguageModel,
    items: Sequence[Sample],
    *,
    encoder: SeesImages,
    control: Control = "none",
) -> list[Answer]:
    """For each item, which of `meta["candidates"]` its description fits best; the right one is `meta["right"]`.

    Where pictures are not told apart ("mean-image", "text-only") every candidate ties, so the score is one over their
    number; ties in general share the score. The shuffled control makes no sense here.

    Raises:
        ValueError: an item without candidates, or the shuffled control.
    """
    if control == "shuffled":
        raise ValueError("Retrieval has no shuffled control: its candidates are other items' pictures already.")
    return [_chosen(item, control, _losses(model, item, encoder, control)) for item in items]


def _losses(model: VisionLanguageModel, item: Sample, encoder: SeesImages, control: Control) -> list[float]:
    """Minus the log-likelihood of the description under each candidate."""
    candidates: Sequence[ImageRef] = item.meta.get("candidates", ())
    if not candidates:
        raise ValueError(f"Sample {item.id!r} has no meta['candidates'] to choose from.")
    if control != "none":
        return [0.0] * len(candidates)
    told = Turn(role="assistant", text=str(item.meta["answers"][0]))
    asked = [dataclasses.replace(item, images=(image,), turns=(*item.turns, told)) for image in candidates]
    features, plans = encoder.features(candidates)
    batch = model.config.batch(asked, tokenizer=model.llm.tokenizer, plans=plans, features=features)
    with torch.inference_mode():
        losses: list[float] = model(batch.to(device_of(model))).row_losses(len(asked)).tolist()
    return losses


def _chosen(item: Sample, control: Control, losses: Sequence[float]) -> Answer:
    best = min(losses)
    tied = [place for place, loss in enumerate(losses) if loss == best]
    right = int(item.meta["right"])
    return Answer(
        item=item.id,
        family=str(item.meta.get("family", "")),
        group=str(item.meta.get("group", item.id)),
        control=control,
        prompt=" ".join(turn.text for turn in item.turns) + f" {item.meta['answers'][0]}",
        prediction=f"picture {tied[0] + 1}" if len(tied) == 1 else "no picture stands out",
        answers=(f"picture {right + 1}",),
        score=1.0 / len(tied) if right in tied else 0.0,
    )
