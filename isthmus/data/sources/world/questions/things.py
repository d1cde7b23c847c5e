"""Questions about items: their attributes, their number, their places, and how they stand to each other."""

from __future__ import annotations

import random

from isthmus.data.sources.world.describe import plural
from isthmus.data.sources.world.questions.question import Question, pick, question, refer
from isthmus.data.sources.world.scene import CELLS, COLOURS, SHAPES, SIZES, Item, Scene

TOTALS = ("1", "2", "3", "4", "5", "6")
COUNTS = ("0", "1", "2", "3", "4")
COUNT_WEIGHTS = {"0": 1.0, "1": 1.1, "2": 4.0, "3": 14.0, "4": 30.0}
"""How strongly a count is preferred where the scene offers it, so that asked counts come out even (measured)."""
YES_NO = ("yes", "no")

_ATTRIBUTES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "colour": (COLOURS, ("What colour is {}?", "Which colour is {}?", "What is the colour of {}?")),
    "shape": (SHAPES, ("What shape is {}?", "Which shape is {}?", "What is the shape of {}?")),
    "size": (SIZES, ("How big is {}?", "Is {} small or large?", "What size is {}?")),
}


def ask_attribute(scene: Scene, rng: random.Random) -> Question | None:
    """Colour, shape or size of one item that the question names without it."""
    if not scene.items:
        return None
    item = rng.choice(scene.items)
    kind = rng.choice(("colour", "shape", "size") if scene.chart is None else ("colour", "size"))
    name = refer(scene, item, rng, hide=kind, by_cell=True)
    if name is None:
        return None
    choices, texts = _ATTRIBUTES[kind]
    return question(f"attribute: {kind}", rng.choice(texts).format(name), str(getattr(item, kind)), choices)


def ask_position(scene: Scene, rng: random.Random) -> Question | None:
    """The cell of one item."""
    if not scene.items:
        return None
    item = rng.choice(scene.items)
    name = refer(scene, item, rng)
    if name is None:
        return None
    text = rng.choice(("Where is {}?", "Where in the picture is {}?", "In which place is {}?")).format(name)
    return question("position: cell", text, CELLS[item.cell], CELLS)


def ask_count(scene: Scene, rng: random.Random) -> Question | None:
    """How many items there are, of one shape, colour or size, or in all."""
    number = len(scene.items)
    if number == 0 or number > len(TOTALS):
        return None
    kinds = ("shape",) if scene.chart is not None else ("all", "shape", "colour", "size")
    kind = rng.choice(kinds)
    if kind == "all":
        texts = ["How many shapes are there?", "How many shapes are there in all?"]
        texts += ["How many things are there?"] * (not scene.writings)
        return question(f"count: {kind}", rng.choice(texts), str(number), TOTALS)
    options: dict[str, list[str]] = {count: [] for count in COUNTS}
    for value in {"shape": SHAPES, "colour": COLOURS, "size": SIZES}[kind]:
        if scene.chart is not None and value == "square":
            continue  # a short bar looks like one
        count = str(sum(getattr(item, kind) == value for item in scene.items))
        if count in options:
            options[count].append(value)
    chosen = pick(rng, options, COUNT_WEIGHTS)
    if chosen is None:
        return None
    count, value = chosen
    noun = plural(value) if kind == "shape" else f"{value} {rng.choice(('things', 'shapes'))}"
    text = rng.choice(("How many {} are there?", "What is the number of {}?", "Count the {}.")).format(noun)
    return question(f"count: {kind}", text, count, COUNTS)


_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_STEP = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
_RELATION_TEXTS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}


def ask_relation(scene: Scene, rng: random.Random) -> Question | None:
    """How two items stand to each other: yes or no, which one lies right beside, or which is bigger."""
    if len(scene.items) < 2:
        return None
    manner = rng.randrange(4)
    if manner == 0:
        return _ask_neighbour(scene, rng)
    return _ask_bigger(scene, rng) if manner == 1 else _ask_side(scene, rng)


def relation_holds(first: Item, relation: str, second: Item) -> bool:
    """Whether `first` lies in a column (or row) of the grid that is further to that side than `second`'s."""
    row, column = _STEP[relation]
    here, there = divmod(first.cell, 3), divmod(second.cell, 3)
    return (here[0] - there[0]) * row + (here[1] - there[1]) * column > 0


def _ask_side(scene: Scene, rng: random.Random) -> Question | None:
    """Yes or no, only about items whose columns (or rows) differ."""
    first, second = rng.sample(scene.items, 2)
    relation = rng.choice(sorted(_STEP))
    holds, reverse = relation_holds(first, relation, second), relation_holds(first, _OPPOSITE[relation], second)
    names = refer(scene, first, rng), refer(scene, second, rng)
    if holds == reverse or None in names:
        return None
    text = f"Is {names[0]} {rng.choice(_RELATION_TEXTS[relation])} {names[1]}?"
    return question("relation: side", text, "yes" if holds else "no", YES_NO, {"relation": relation})


def _ask_bigger(scene: Scene, rng: random.Random) -> Question | None:
    """Yes or no, only about items of different size, which the question does not say."""
    first, second = rng.sample(scene.items, 2)
    names = refer(scene, first, rng, hide="size"), refer(scene, second, rng, hide="size")
    if first.size == second.size or None in names:
        return None
    word, wanted = rng.choice((("bigger", "large"), ("smaller", "small")))
    text = f"Is {names[0]} {word} than {names[1]}?"
    return question("relation: size", text, "yes" if first.size == wanted else "no", YES_NO, {"relation": word})


def _ask_neighbour(scene: Scene, rng: random.Random) -> Question | None:
    """Colour or shape of the item in the very next cell on one side."""
    item = rng.choice(scene.items)
    relation = rng.choice(sorted(_STEP))
    row, column = divmod(item.cell, 3)
    row, column = row + _STEP[relation][0], column + _STEP[relation][1]
    beside = [other for other in scene.items if divmod(other.cell, 3) == (row, column)]
    name = refer(scene, item, rng)
    if not beside or name is None:
        return None
    kind = rng.choice(("colour", "shape"))
    where = {"left of": "just to the left of", "right of": "just to the right of"}.get(relation, f"just {relation}")
    text = f"What {kind} is the {'shape' if kind == 'colour' else 'thing'} {where} {name}?"
    answer = str(getattr(beside[0], kind))
    choices = COLOURS if kind == "colour" else SHAPES
    return question(f"relation: beside {kind}", text, answer, choices, {"relation": relation})
