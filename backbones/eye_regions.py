"""What the eye learns to tell apart: regions of pictures, and the phrases that are true of them.

A phrase belongs to a pattern ("shape", "colour shape", "text", ...). Inside one pattern two different phrases exclude
each other, so that every other phrase of the pattern in the batch is a negative that differs in little.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from backbones.real import NLVR_SIZES, Boxes, Figure
from isthmus.data.sources.world import CELLS, Box, Chart, Scene, Writing
from isthmus.data.sources.world.charts import bar_boxes
from isthmus.data.sources.world.words import WORDS

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
PLACES = ("first", "second", "third")

PHRASES: dict[str, tuple[str, ...]] = {
    "shape": ("a {}", "a {} shape", "{}"),
    "colour": ("something {}", "a {} thing", "{}"),
    "size": ("a {} thing", "something {}"),
    "cell": ("{}", "something, {}", "a thing, {}"),
    "colour shape": ("a {}", "{}", "the {}"),
    "size colour shape": ("a {}", "{}"),
    "colour shape cell": ("{}", "a {}"),
    "count": ("{} shapes", "a picture with {} shapes"),
    "text": ("the text {}", "{}", "the word {}"),
    "first letter": ("it begins with {}", "the first letter is {}"),
    "second letter": ("the second letter is {}",),
    "third letter": ("the third letter is {}",),
    "letters": ("a word of {} letters", "{} letters"),
    "bar colour": ("a {} bar",),
    "bar value": ("a bar of {}", "a bar of value {}"),
    "chart": ("{}", "a picture of {}"),
    "type": ("a {}", "{}", "a picture that is a {}"),
    "subject": ("a figure about {}", "{}"),
    "box count": ("a box with {} objects", "{} objects"),
    "box objects": ("a box with {}",),
}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box, and for every pattern the one content that is true of it."""

    box: Box
    facts: dict[str, str]


def phrase(pattern: str, content: str, rng: random.Random) -> str:
    """One wording of a content."""
    return rng.choice(PHRASES[pattern]).format(content)


def _letters(writing: Writing) -> Region:
    facts = {"text": writing.text, "letters": str(len(writing.text)), "cell": CELLS[writing.cell]}
    facts |= {f"{place} letter": letter for place, letter in zip(PLACES, writing.text, strict=False)}
    return Region(box=writing.box, facts=facts)


def _chart_regions(chart: Chart) -> list[Region]:
    if chart.kind == "line":
        return [Region(box=chart.box, facts={"chart": f"a {chart.trend} line chart", "bar colour": chart.labels[0]})]
    found = [Region(box=chart.box, facts={"chart": f"a bar chart with {len(chart.labels)} bars"})]
    for label, value, box in zip(chart.labels, chart.values, bar_boxes(chart), strict=True):
        found.append(Region(box=box, facts={"bar colour": label, "bar value": str(value)}))
    return found


def scene_regions(scene: Scene) -> list[Region]:
    """Everything that is in a scene, and the scene."""
    found = []
    for item in scene.items:
        kind = f"{item.colour} {item.shape}"
        facts = {
            "shape": item.shape,
            "colour": item.colour,
            "size": item.size,
            "cell": CELLS[item.cell],
            "colour shape": kind,
            "size colour shape": f"{item.size} {kind}",
            "colour shape cell": f"{kind}, {CELLS[item.cell]}",
        }
        found.append(Region(box=item.box, facts=facts))
    found += [_letters(writing) for writing in scene.writings]
    if scene.chart is not None:
        found += _chart_regions(scene.chart)
    else:
        found.append(Region(box=WHOLE, facts={"count": str(len(scene.items))}))
    return found


def figure_regions(figure: Figure) -> list[Region]:
    """A textbook figure as one region: its type, unless unknown, and its subject."""
    facts = {"subject": figure.subject}
    if figure.type != "other":
        facts["type"] = figure.type
    return [Region(box=WHOLE, facts=facts)]


def nlvr_regions(example: Boxes, order: tuple[int, ...]) -> list[Region]:
    """The boxes of an NLVR picture and their larger objects; the 400 x 100 pixels are squashed to a square."""
    found = []
    for slot, which in enumerate(order):
        box = example.boxes[which]
        left = 150 * slot
        kinds = sorted({f"{item.colour} {item.shape}" for item in box})
        facts = {"box count": str(len(box)), "box objects": ", ".join(kinds[:4])}
        found.append(Region(box=(left / 400, 0.0, (left + 100) / 400, 1.0), facts=facts))
        for item in box:
            if item.size < 20:
                continue
            corner = (left + item.x, item.y)
            where = (corner[0] / 400, corner[1] / 100, (corner[0] + item.size) / 400, (corner[1] + item.size) / 100)
            kind = f"{item.colour} {item.shape}"
            facts = {"shape": item.shape, "colour": item.colour, "colour shape": kind}
            found.append(Region(box=where, facts=facts | {"size": NLVR_SIZES[item.size]}))
    return found


def nlvr_text(example: Boxes, order: tuple[int, ...]) -> str:
    """The three boxes in words, left to right."""
    parts = []
    for place, which in zip(("left", "middle", "right"), order, strict=True):
        things = ", ".join(f"{NLVR_SIZES[item.size]} {item.colour} {item.shape}" for item in example.boxes[which])
        parts.append(f"{place} box: {things or 'nothing'}")
    return "; ".join(parts) + "."


def extra_negatives(pattern: str, rng: random.Random) -> list[str]:
    """Contents added to a pattern that the batch alone would make too easy."""
    if pattern == "text":
        return rng.sample(WORDS, 40) + [str(rng.randint(0, 999)) for _ in range(12)]
    return []
