"""The filter report: one HTML page with how many texts were kept, their scores, and examples kept and dropped."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from isthmus.curate.shards import Judged
from isthmus.data.sample import ImageRef

_BINS, _EXAMPLES, _TEXTS = 16, 24, 6


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Scores from `low` on: how many texts were kept and dropped, and the bars' heights in percent."""

    low: str
    kept: int
    dropped: int
    kept_height: float
    dropped_height: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image as a data URI ("" where it cannot be shown) with its texts, best first."""

    image: str
    picture: str
    texts: tuple[Judged, ...]


def bins(judged: Sequence[Judged]) -> list[Bin]:
    """The histogram of all finite scores."""
    scored = [one for one in judged if not one.error and one.score > float("-inf")]
    if not scored:
        return []
    low, high = min(one.score for one in scored), max(one.score for one in scored)
    width = (high - low) / _BINS or 1.0
    counts = [[0, 0] for _ in range(_BINS)]
    for one in scored:
        counts[min(_BINS - 1, int((one.score - low) / width))][0 if one.kept else 1] += 1
    most = max(kept + dropped for kept, dropped in counts)
    return [
        Bin(
            low=f"{low + place * width:.3g}",
            kept=kept,
            dropped=dropped,
            kept_height=100 * kept / most,
            dropped_height=100 * dropped / most,
        )
        for place, (kept, dropped) in enumerate(counts)
    ]


def sources(judged: Sequence[Judged]) -> list[tuple[str, int, int, str, str]]:
    """By who wrote the texts: how many, how many kept, the mean scores of all and of the kept."""
    rows = []
    for source in dict.fromkeys(one.source for one in judged if not one.error):
        mine = [one for one in judged if one.source == source and not one.error and one.score > float("-inf")]
        kept = [one for one in mine if one.kept]
        means = ["" if not some else f"{fmean(one.score for one in some):.3f}" for some in (mine, kept)]
        rows.append((source, len(mine), len(kept), means[0], means[1]))
    return rows


def examples(judged: Sequence[Judged], images: Mapping[str, ImageRef]) -> list[Example]:
    """Images evenly over the set, and of each the best texts and the worst."""
    grouped = [list(some) for _, some in groupby((one for one in judged if not one.error), key=lambda one: one.image)]
    shown = grouped[:: max(1, -(-len(grouped) // _EXAMPLES))]
    return [
        Example(image=some[0].image, picture=_thumbnail(images[some[0].image]), texts=tuple(_ends(some)))
        for some in shown
    ]


def _ends(texts: Sequence[Judged]) -> Sequence[Judged]:
    half = _TEXTS // 2
    return texts if len(texts) <= _TEXTS else [*texts[:half], *texts[-half:]]


def _thumbnail(ref: ImageRef, side: int = 160) -> str:
    try:
        image = ref.load()
    except ValueError:
        return ""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    target = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(target, format="JPEG", quality=86)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"


def write_report(
    path: Path, judged: Sequence[Judged], told: Mapping[str, Any], *, images: Mapping[str, ImageRef]
) -> Path:
    """Write the page, with examples from `images` by their paths. Everything is escaped."""
    environment = Environment(
        loader=PackageLoader("isthmus.curate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        told=told,
        kept=sum(one.kept for one in judged),
        texts=sum(not one.error for one in judged),
        images=len({one.image for one in judged if not one.error}),
        kept_images=len({one.image for one in judged if one.kept}),
        bins=bins(judged),
        sources=sources(judged),
        examples=examples(judged, images),
        unreadable=[(one.image, one.error) for one in judged if one.error],
    )
    part = path.with_name(f".{path.name}.part")
    part.write_text(str(page), encoding="utf-8")
    part.replace(path)
    return path
