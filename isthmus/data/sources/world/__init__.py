"""The exact world: scenes with known truth, drawn at any size, described, asked about."""

from isthmus.data.sources.world.describe import AT, DescribeStyle, describe
from isthmus.data.sources.world.make import bucket, make_scene, twin
from isthmus.data.sources.world.plan import COMPANIONS
from isthmus.data.sources.world.questions import FAMILIES, Priors, Question, ask, yes_prior
from isthmus.data.sources.world.regions import regions
from isthmus.data.sources.world.render import render
from isthmus.data.sources.world.scene import (
    CELLS,
    COLOURS,
    HELD_OUT,
    RGB,
    SHAPES,
    SIZES,
    SPLITS,
    TRENDS,
    Background,
    Box,
    Chart,
    Distractor,
    Item,
    Scene,
    Split,
    Writing,
)
from isthmus.data.sources.world.style import WorldStyle

__all__ = [
    "AT",
    "CELLS",
    "COLOURS",
    "COMPANIONS",
    "FAMILIES",
    "HELD_OUT",
    "RGB",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TRENDS",
    "Background",
    "Box",
    "Chart",
    "DescribeStyle",
    "Distractor",
    "Item",
    "Priors",
    "Question",
    "Scene",
    "Split",
    "WorldStyle",
    "Writing",
    "ask",
    "bucket",
    "describe",
    "make_scene",
    "regions",
    "render",
    "twin",
    "yes_prior",
]
