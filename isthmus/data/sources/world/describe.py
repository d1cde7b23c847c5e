"""A scene in words: everything that its questions ask about, in several manners."""

from __future__ import annotations

import random
from typing import Literal, get_args

from isthmus.data.sources.world.scene import CELLS, Chart, Item, Scene, Writing

DescribeStyle = Literal["prose", "list", "telegraph", "counted"]
Order = Literal["raster", "shuffled"]

AT = (
    "at the top left",
    "at the top",
    "at the top right",
    "at the left",
    "in the centre",
    "at the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
"""How each cell is said inside a sentence."""
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TREND_VERBS = {
    "rising": "rises",
    "falling": "falls",
    "peak": "rises to a peak and falls again",
    "valley": "falls into a valley and rises again",
}


def with_article(noun: str) -> str:
    """The noun phrase with "a" or "an"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return noun + ("es" if noun.endswith("s") else "s")


def item_name(item: Item) -> str:
    """Size, colour and shape."""
    return f"{item.size} {item.colour} {item.shape}"


def writing_name(writing: Writing) -> str:
    """What is written, as "the word ..." or "the number ..."."""
    return f"the number {writing.text}" if writing.text.isdigit() else f'the word "{writing.text}"'


def chart_name(chart: Chart) -> str:
    """The whole truth of a chart in one phrase."""
    if chart.kind == "bar":
        bars = ", ".join(f"{label} {value}" for label, value in zip(chart.labels, chart.values, strict=True))
        return f"a bar chart with {NUMBER_WORDS[len(chart.labels)]} bars: {bars}"
    values = ", ".join(map(str, chart.values))
    return f"a line chart whose {chart.labels[0]} line {_TREND_VERBS[chart.trend]}: {values}"


def describe(scene: Scene, rng: random.Random, style: DescribeStyle = "prose", order: Order = "raster") -> str:
    """The scene in words.

    "prose" writes sentences, "list" one phrase per thing, "telegraph" goes through all nine cells, and "counted"
    groups by shape. Every style says size, colour, shape and cell of all items, all writings and all chart values.

    Raises:
        ValueError: an unknown style or order.
    """
    if style not in get_args(DescribeStyle) or order not in get_args(Order):
        raise ValueError(
            f"describe() knows the styles {get_args(DescribeStyle)} and the orders {get_args(Order)}, "
            f"got {style!r} and {order!r}."
        )
    if style == "telegraph":
        return _telegraph(scene, rng, order)
    if style == "counted":
        return _counted(scene, rng, order)
    things: list[tuple[str, int]] = [(item_name(item), item.cell) for item in scene.items]
    things += [(writing_name(writing), writing.cell) for writing in scene.writings]
    things.sort(key=lambda thing: thing[1])
    if order == "shuffled":
        rng.shuffle(things)
    if style == "list":
        parts = [f"{name}, {CELLS[cell]}" for name, cell in things]
        if scene.chart is not None:
            parts.insert(0, chart_name(scene.chart))
        return "; ".join(parts) + "."
    return _prose(scene, things, rng)


def _prose(scene: Scene, things: list[tuple[str, int]], rng: random.Random) -> str:
    sentences = []
    if scene.chart is not None:
        sentences.append(f"{rng.choice(('There is', 'The picture shows'))} {chart_name(scene.chart)}.")
    start = 0
    while start < len(things):
        group = things[start : start + rng.randint(1, 3)]
        start += len(group)
        sentences.append(_sentence([(_noun(name), AT[cell]) for name, cell in group], rng))
    return " ".join(sentences)


def _noun(name: str) -> str:
    return name if name.startswith("the ") else with_article(name)


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(group: list[tuple[str, str]], rng: random.Random) -> str:
    """One sentence about one to three things."""
    manner = rng.randrange(5)
    plain = _join([f"{noun} {at}" for noun, at in group])
    if manner == 0:
        return f"There is {plain}."
    if manner == 1:
        return f"You can see {plain}."
    if manner == 2:
        return f"The picture has {plain}."
    if manner == 3:
        text = _join([f"{at} is {noun}" for noun, at in group])
    else:
        text = _join([f"{noun} is {at}" for noun, at in group])
    return text[0].upper() + text[1:] + "."


def _telegraph(scene: Scene, rng: random.Random, order: Order) -> str:
    """Every cell in raster order, the empty ones too."""
    names = ["empty"] * len(CELLS)
    for item in scene.items:
        names[item.cell] = item_name(item)
    for writing in scene.writings:
        names[writing.cell] = writing_name(writing).removeprefix("the ")
    covered = () if scene.chart is None else scene.chart.cells
    cells = [cell for cell in range(len(CELLS)) if cell not in covered]
    if order == "shuffled":
        rng.shuffle(cells)
    parts = [] if scene.chart is None else [chart_name(scene.chart).removeprefix("a ")]
    return " | ".join(parts + [f"{CELLS[cell]}: {names[cell]}" for cell in cells])


def _counted(scene: Scene, rng: random.Random, order: Order) -> str:
    """How many of each shape, then each of them."""
    shapes = list(dict.fromkeys(item.shape for item in scene.items))
    if order == "shuffled":
        rng.shuffle(shapes)
    number = len(scene.items)
    sentences = [f"{NUMBER_WORDS[number].capitalize()} {'shape' if number == 1 else 'shapes'} in all."]
    for shape in shapes:
        same = [item for item in scene.items if item.shape == shape]
        if order == "shuffled":
            rng.shuffle(same)
        heading = f"{NUMBER_WORDS[len(same)]} {shape if len(same) == 1 else plural(shape)}"
        each = ", ".join(f"{item.size} {item.colour} {AT[item.cell]}" for item in same)
        sentences.append(f"{heading.capitalize()}: {each}.")
    sentences += [f"{_capital(writing_name(writing))} {AT[writing.cell]}." for writing in scene.writings]
    if scene.chart is not None:
        sentences.append(_capital(chart_name(scene.chart)) + ".")
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
