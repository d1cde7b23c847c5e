"""Boxes and the phrases that name what is in them."""

from __future__ import annotations

import random

from isthmus.data.sources.world.charts import bar_boxes
from isthmus.data.sources.world.describe import with_article
from isthmus.data.sources.world.scene import Box, Chart, Scene


def regions(scene: Scene) -> list[tuple[Box, str]]:
    """Every item, writing, chart and bar: its box in fractions of the side, and a phrase for it.

    The phrases vary, always the same way for one scene: an item's names its colour and shape and often its size.
    """
    rng = random.Random(scene.seed)
    found: list[tuple[Box, str]] = []
    for item in scene.items:
        name = f"{item.colour} {item.shape}"
        if rng.random() < 0.7:
            name = f"{item.size} {name}"
        found.append((item.box, rng.choice((with_article(name), with_article(name), name))))
    for writing in scene.writings:
        kind = "number" if writing.text.isdigit() else "word"
        names = (f"the {kind} {writing.text}", writing.text, f'the text "{writing.text}"')
        found.append((writing.box, rng.choice(names)))
    if scene.chart is not None:
        found += _chart_regions(scene.chart, rng)
    return found


def _chart_regions(chart: Chart, rng: random.Random) -> list[tuple[Box, str]]:
    if chart.kind == "line":
        trend = {"peak": "with a peak", "valley": "with a valley"}.get(chart.trend, chart.trend)
        line = with_article(f"{chart.labels[0]} line")
        return [(chart.box, rng.choice(("a line chart", f"{line} {trend}")))]
    found = [(chart.box, rng.choice(("a bar chart", f"a bar chart with {len(chart.labels)} bars")))]
    for label, value, box in zip(chart.labels, chart.values, bar_boxes(chart), strict=True):
        bar = with_article(f"{label} bar")
        found.append((box, rng.choice((bar, f"{bar} of {value}"))))
    return found
