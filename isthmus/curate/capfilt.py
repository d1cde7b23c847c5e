"""CapFilt: caption every image several times, rank the captions with another model, keep the best, in shards.

Source: BLIP (arXiv:2201.12086), section 3.3, where a captioner writes and a filter drops; BLIP-2 (arXiv:2301.12597),
section 3.4, where the captions of an image are ranked together by CLIP ViT-L/14 and the best two are kept, of ten drawn
and the one that came with it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from isthmus.curate.captioners import Captioner
from isthmus.curate.pictures import Pictured
from isthmus.curate.rankers import Ranker
from isthmus.curate.report import write_report
from isthmus.curate.shards import Judged, Shards

_TOGETHER = 8
"""Images that are captioned and ranked in one batch."""


@dataclass(frozen=True, kw_only=True)
class Curation:
    """The choices. A score is the ranker's; `least` is the one below which nothing is kept."""

    candidates: int = 5
    keep: int = 1
    least: float | None = None
    shard: int = 256
    """Images in a file of results; what a stop can lose."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 0 or self.keep < 1 or self.shard < 1:
            raise ValueError(
                f"Curation(candidates={self.candidates}, keep={self.keep}, shard={self.shard}): keep and shard must be "
                f"1 or more, candidates 0 (filter what came with the images) or more."
            )


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What came of it: `captions` holds every kept caption, as `CaptionFile` reads it."""

    captions: Path
    report: Path
    num_images: int
    num_kept: int
    num_dropped: int
    unreadable: tuple[str, ...]


def curate(
    curation: Curation,
    pictures: Sequence[Pictured],
    captioner: Captioner,
    ranker: Ranker,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Curated:
    """Caption, rank and keep, into a folder; what a stopped curation left there is not done again.

    Two curations are equal, and so is one that was stopped at any moment and begun again. Images that cannot be read
    are named and left out.

    Raises:
        ValueError: no images, or the folder holds another curation.
    """
    if not pictures:
        raise ValueError("There are no images to caption.")
    told = {
        "curation": asdict(curation),
        "captioner": captioner.name if curation.candidates else "",
        "ranker": ranker.name,
        "meaning": ranker.meaning,
        "images": _fingerprint(pictures),
        "num_images": len(pictures),
    }
    shards = Shards(folder, told)
    for number, first in enumerate(range(0, len(pictures), curation.shard)):
        some = pictures[first : first + curation.shard]
        if not shards.done(number):
            shards.write(number, _shard(curation, number, some, captioner, ranker))
        if on_progress is not None:
            on_progress(first + len(some), len(pictures))
    captions = shards.join()
    every = shards.read()
    report = write_report(folder / "report.html", every, told, images={one.path: one.image for one in pictures})
    return Curated(
        captions=captions,
        report=report,
        num_images=len(pictures),
        num_kept=sum(one.kept for one in every),
        num_dropped=sum(not one.kept for one in every if not one.error),
        unreadable=tuple(f"{one.image}: {one.error}" for one in every if one.error),
    )


def choose(curation: Curation, judged: Sequence[Judged]) -> list[Judged]:
    """The texts of one image, best first (of equals the first), with those that are kept marked."""
    ordered = sorted(judged, key=lambda one: -one.score)
    least = float("-inf") if curation.least is None else curation.least
    return [
        one.marked(kept=rank < curation.keep and one.score >= least and one.score > float("-inf"), rank=rank)
        for rank, one in enumerate(ordered)
    ]


def _shard(
    curation: Curation, number: int, pictures: Sequence[Pictured], captioner: Captioner, ranker: Ranker
) -> list[Judged]:
    """All texts of a shard's images, judged."""
    found: list[Judged] = []
    readable: list[Pictured] = []
    for one in pictures:
        try:
            one.image.load()
            readable.append(one)
        except ValueError as error:
            found.append(Judged(image=one.path, text="", source="", score=float("-inf"), error=str(error)))
    for first in range(0, len(readable), _TOGETHER):
        some = readable[first : first + _TOGETHER]
        with torch.random.fork_rng():
            torch.manual_seed(_seed(curation.seed, number, first))
            drawn = (
                captioner.caption([one.image for one in some], curation.candidates)
                if curation.candidates
                else [[] for _ in some]
            )
        found += _ranked(curation, some, drawn, captioner, ranker)
    return found


def _ranked(
    curation: Curation,
    pictures: Sequence[Pictured],
    drawn: Sequence[Sequence[str]],
    captioner: Captioner,
    ranker: Ranker,
) -> list[Judged]:
    rows: list[tuple[int, str, str]] = []
    for owner, (picture, new) in enumerate(zip(pictures, drawn, strict=True)):
        texts = dict.fromkeys(_clean(picture.texts), "given")
        for text in _clean(new):
            texts.setdefault(text, captioner.name)
        rows += [(owner, text, source) for text, source in texts.items()]
    if not rows:
        return []
    owners, texts_in_order = [owner for owner, _, _ in rows], [text for _, text, _ in rows]
    scores = ranker.scores([one.image for one in pictures], texts_in_order, owners)
    judged: list[list[Judged]] = [[] for _ in pictures]
    for (owner, text, source), score in zip(rows, scores, strict=True):
        judged[owner].append(Judged(image=pictures[owner].path, text=text, source=source, score=score))
    return [one for some in judged for one in choose(curation, some)]


def _clean(texts: Sequence[str]) -> list[str]:
    """Single spaces, nothing empty, each text once."""
    return list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def _fingerprint(pictures: Sequence[Pictured]) -> str:
    rows: list[Any] = [[one.path, list(one.texts)] for one in pictures]
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
