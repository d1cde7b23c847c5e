"""Does a picture fit its description better than a wrong one? Asked of models that compare and judge."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from isthmus.connectors.reading import Vectors
from isthmus.data.sample import Sample, Turn
from isthmus.evaluate.gallery import Gallery, retrieve_both_ways
from isthmus.evaluate.sight import SeesImages
from isthmus.model import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Preferred:
    """For each picture whether its own description won: by comparison alone, and judged. A tie counts as one half."""

    compared: tuple[float, ...]
    judged: tuple[float, ...]


def prefer(
    model: VisionLanguageModel,
    samples: Sequence[Sample],
    *,
    encoder: SeesImages,
    batch_size: int = 32,
    judge: bool = True,
    vectors: Vectors = "queries",
    on_progress: Callable[[int, int], None] | None = None,
) -> Preferred:
    """Each sample's caption against `meta["wrong"]`, over its own image: by similarity, and with the matching logit.

    Without `judge` both are the similarity's. `vectors` is as in `retrieve_both_ways`.

    Raises:
        ValueError: a sample without a wrong description, or a model that does not align images and texts.
    """
    compared: list[float] = []
    judged: list[float] = []
    for first in range(0, len(samples), batch_size):
        some = samples[first : first + batch_size]
        for right, wrong in zip(*_scores(model, some, encoder, batch_size, judge, vectors), strict=True):
            compared.append(_won(right[0], wrong[0]))
            judged.append(_won(right[1], wrong[1]))
        if on_progress is not None:
            on_progress(first + len(some), len(samples))
    return Preferred(compared=tuple(compared), judged=tuple(judged))


def _won(right: float, wrong: float) -> float:
    return 0.5 if right == wrong else float(right > wrong)


def _scores(
    model: VisionLanguageModel,
    samples: Sequence[Sample],
    encoder: SeesImages,
    batch_size: int,
    judge: bool,
    vectors: Vectors,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Similarity and judged score of each image with its own text, and with the wrong one."""
    texts = (*samples, *(_told_wrong(sample) for sample in samples))
    count = len(samples)
    own = torch.eye(count, dtype=torch.bool)
    gallery = Gallery(
        images=tuple(sample.images[0] for sample in samples), texts=texts, belongs=torch.cat([own, own], dim=1)
    )
    found = retrieve_both_ways(
        model,
        gallery,
        encoder=encoder,
        wanted=gallery.belongs,
        k=int(judge),
        batch_size=batch_size,
        vectors=vectors,
    )
    rows = torch.arange(count)
    sides = []
    for places in (rows, rows + count):
        compared, judged = found.compared[rows, places].tolist(), found.to_text[rows, places].tolist()
        sides.append(list(zip(compared, judged, strict=True)))
    return sides[0], sides[1]


def _told_wrong(sample: Sample) -> Sample:
    wrong = sample.meta.get("wrong")
    if not wrong:
        raise ValueError(f"Sample {sample.id!r} has no meta['wrong'] to be told from.")
    turns = tuple(
        Turn(role="assistant", text=str(wrong)) if turn.role == "assistant" else turn for turn in sample.turns
    )
    return dataclasses.replace(sample, turns=turns)
