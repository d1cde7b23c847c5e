"""The real data that the backbones read: textbook figures and NLVR boxes, their training parts only."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NLVR_COLOURS = {"yellow": "yellow", "black": "black", "#0099ff": "blue"}
NLVR_SIZES = {10: "small", 20: "medium", 30: "large"}
ORDERS = tuple(itertools.permutations(range(3)))
"""Image k of an NLVR example shows its boxes in this order (checked on the pixels)."""

SUBJECTS = {
    "university-physics-bundle": "physics",
    "college-physics-bundle": "physics",
    "physics": "physics",
    "world-history": "history",
    "us-history": "history",
    "astronomy": "astronomy",
    "microbiology": "biology",
    "anatomy-physiology": "anatomy",
    "chemistry-bundle": "chemistry",
    "introduction-anthropology": "anthropology",
    "american-government": "politics",
    "introduction-political-science": "politics",
    "psychology": "psychology",
    "introduction-sociology": "sociology",
    "prealgebra-bundle": "mathematics",
    "introductory-statistics-bundle": "statistics",
    "college-success": "education",
    "introduction-philosophy": "philosophy",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A textbook figure with its authors' words."""

    image: Path
    kind: str
    type: str
    subject: str
    short: str
    description: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class BoxObject:
    """An object of an NLVR box: pixels inside its 100 x 100 box."""

    x: int
    y: int
    size: int
    shape: str
    colour: str


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """An NLVR example: three boxes of objects, a human sentence, and whether it is true of them."""

    images: tuple[Path, ...]
    boxes: tuple[tuple[BoxObject, ...], ...]
    sentence: str
    label: bool


def read_figures(data: Path, split: Literal["train", "val", "test"]) -> list[Figure]:
    """The textbook figures of one of the files' own splits."""
    folder = data / "textbook_figures"
    figures = []
    for line in (folder / f"{split}.jsonl").read_text().splitlines():
        row = json.loads(line)
        figures.append(
            Figure(
                image=folder / row["image"],
                kind=row["kind"],
                type=row["type"],
                subject=SUBJECTS[row["book"]],
                short=row["short"],
                description=row["description"],
                caption=row["caption"],
            )
        )
    return figures


def read_nlvr(data: Path, part: Literal["dev", "test"]) -> list[Boxes]:
    """The NLVR examples of one public file (dev is for training)."""
    folder = data / "nlvr"
    examples = []
    for line in (folder / f"official_{part}.jsonl").read_text().splitlines():
        row = json.loads(line)
        boxes = tuple(
            tuple(
                BoxObject(
                    x=item["x"],
                    y=item["y"],
                    size=item["size"],
                    shape=item["type"],
                    colour=NLVR_COLOURS[item["color"].lower()],
                )
                for item in box
            )
            for box in row["boxes"]
        )
        images = tuple(folder / name for name in row["images"])
        examples.append(Boxes(images=images, boxes=boxes, sentence=row["sentence"], label=bool(row["label"])))
    return examples
