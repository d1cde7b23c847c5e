"""Batches of pictures with regions and descriptions for the eye."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbones.eye_regions import (
    Region,
    extra_negatives,
    figure_regions,
    nlvr_regions,
    nlvr_text,
    phrase,
    scene_regions,
)
from backbones.real import ORDERS, Boxes, Figure
from isthmus.data.sources.world import Box, WorldStyle, describe, make_scene, render, twin
from isthmus.data.sources.world.describe import DescribeStyle
from isthmus.data.sources.world.make import Change

SIDE, PATCH = 96, 8
GRID = SIDE // PATCH
EARLY = WorldStyle(items=(3, 6), writing=0.05, chart=0.03)
LATE = WorldStyle(items=(1, 6), writing=0.4, chart=0.12)
HARD: tuple[Change, ...] = ("shape", "shape", "colour", "cell")
MANNERS: tuple[DescribeStyle, ...] = ("list", "list", "prose", "counted")
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)


@dataclass(kw_only=True)
class View:
    """One picture with its regions, a text that describes it, and a text that nearly does."""

    image: Image.Image
    regions: list[Region]
    text: str
    near: str | None


@dataclass(kw_only=True)
class EyeBatch:
    """`covered[r]` are the patches of region r in picture `owner[r]`; `choices[p]` pairs regions with phrases."""

    pixels: Float[Tensor, "views 3 height width"]
    covered: Bool[Tensor, "regions patches"]
    owner: Int[Tensor, "regions"]
    phrases: list[str]
    choices: dict[str, tuple[Int[Tensor, "asked"], Int[Tensor, "asked"], Int[Tensor, "answers"]]]
    texts: list[str]
    near: list[str]


def to_pixels(images: list[Image.Image]) -> Float[Tensor, "views 3 height width"]:
    """Pictures of 96 x 96, scaled with CLIP's mean and standard deviation."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return (stacked.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


@lru_cache(maxsize=20_000)
def small(path: Path, side: int) -> Image.Image:
    """A real picture squashed to a square, kept in memory."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)


def patches_of(box: Box) -> Bool[Tensor, "patches"]:
    """The patches of which a box covers 30% or more, and always the one at its centre."""
    columns = torch.tensor([_share(box[0], box[2], place) for place in range(GRID)])
    rows = torch.tensor([_share(box[1], box[3], place) for place in range(GRID)])
    covered = rows[:, None] * columns[None, :] >= 0.3
    covered[centre_of(box)] = True
    return covered.flatten()


def _share(low: float, high: float, place: int) -> float:
    return max(0.0, min(high * GRID, place + 1) - max(low * GRID, place))


def centre_of(box: Box) -> tuple[int, int]:
    """Row and column of the patch at a box's centre."""
    return min(GRID - 1, int((box[1] + box[3]) / 2 * GRID)), min(GRID - 1, int((box[0] + box[2]) / 2 * GRID))


class Sources:
    """Draws views: the exact world's train split, textbook figures and NLVR boxes."""

    def __init__(self, figures: list[Figure], boxes: list[Boxes], seed: int) -> None:
        self.figures, self.boxes = figures, boxes
        self.rng = random.Random(seed)
        self.scene_seed = seed * 100_000_000

    def world(self, *, late: bool) -> View:
        """A new scene; early ones hold many items and few writings."""
        self.scene_seed += 1
        scene = make_scene(self.scene_seed, "train", LATE if late else EARLY)
        style = self.rng.choice(MANNERS)
        text = describe(scene, self.rng, style, "shuffled")
        other = twin(scene, self.rng, self.rng.choice(HARD))
        near = None if other is None else describe(other, self.rng, style, "shuffled")
        return View(image=render(scene, SIDE), regions=scene_regions(scene), text=text, near=near)

    def figure(self) -> View:
        """A textbook figure, lightly cropped."""
        figure = self.rng.choice(self.figures)
        image = small(figure.image, SIDE + 16)
        side = self.rng.randint(SIDE - 16, SIDE + 16)
        left, top = (self.rng.randint(0, SIDE + 16 - side) for _ in range(2))
        image = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        text = self.rng.choice((figure.short, figure.short, figure.description, figure.caption or figure.short))
        return View(image=image, regions=figure_regions(figure), text=text, near=None)

    def nlvr(self) -> View:
        """NLVR boxes in one of their six orders."""
        example = self.rng.choice(self.boxes)
        place = self.rng.randrange(len(ORDERS))
        order = ORDERS[place]
        text = nlvr_text(example, order)
        image = small(example.images[place], SIDE)
        return View(image=image, regions=nlvr_regions(example, order), text=text, near=None)

    def batch(self, world: int, figures: int, nlvr: int, *, late: bool) -> EyeBatch:
        """A mixed batch."""
        views = [self.world(late=late) for _ in range(world)]
        views += [self.figure() for _ in range(figures)] + [self.nlvr() for _ in range(nlvr)]
        return collate(views, self.rng)


def collate(views: list[View], rng: random.Random) -> EyeBatch:
    """Lay out the regions of all views, and the distinct phrases of every pattern."""
    owner = [view for view, one in enumerate(views) for _ in one.regions]
    regions = [region for one in views for region in one.regions]
    phrases: list[str] = []
    choices = {}
    left_out = rng.choice(("size colour shape", "colour shape cell"))
    for pattern in sorted({pattern for region in regions for pattern in region.facts} - {left_out}):
        asked = [place for place, region in enumerate(regions) if pattern in region.facts]
        contents = sorted({regions[place].facts[pattern] for place in asked} | set(extra_negatives(pattern, rng)))
        if len(contents) < 2:
            continue
        first = len(phrases)
        phrases += [phrase(pattern, content, rng) for content in contents]
        answer = torch.tensor([contents.index(regions[place].facts[pattern]) for place in asked])
        choices[pattern] = (torch.tensor(asked), answer, torch.arange(first, len(phrases)))
    return EyeBatch(
        pixels=to_pixels([view.image for view in views]),
        covered=torch.stack([patches_of(region.box) for region in regions]),
        owner=torch.tensor(owner),
        phrases=phrases,
        choices=choices,
        texts=[view.text for view in views],
        near=[view.near for view in views if view.near is not None],
    )


def tokenise(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, limit: int
) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
    """Padded ids and their mask."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"].bool()
