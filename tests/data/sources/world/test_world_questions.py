"""The exact world's questions: every answer found again from the text and the boxes alone, and none preferred."""

from __future__ import annotations

import inspect
import random
import re
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from isthmus.data.sources.world import (
    CELLS,
    COLOURS,
    FAMILIES,
    HELD_OUT,
    SHAPES,
    SIZES,
    SPLITS,
    Chart,
    Item,
    Question,
    Scene,
    Split,
    WorldStyle,
    Writing,
    ask,
    make_scene,
    yes_prior,
)

BUSY = WorldStyle(chart=0.3, writing=0.4)
SIDES = {
    "left of": (-1, 0), "to the left of": (-1, 0), "right of": (1, 0), "to the right of": (1, 0),
    "above": (0, -1), "higher than": (0, -1), "below": (0, 1), "lower than": (0, 1),
}  # fmt: skip


def _centre(thing: Item | Writing) -> tuple[float, float]:
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def _column_row(thing: Item | Writing) -> tuple[int, int]:
    x, y = _centre(thing)
    return int(3 * x), int(3 * y)


def _cell_in(phrase: str) -> str | None:
    named = [cell for cell in CELLS if re.search(rf"(at|in) the {cell}$", phrase)]
    return max(named, key=len) if named else None


def _named(scene: Scene, phrase: str) -> list[Item]:
    """The items that a noun phrase fits, plural or not."""
    cell = _cell_in(phrase)
    head = re.sub(r" (at|in) the .*$", "", phrase)
    words = [re.sub(r"^(.*s)es$|^(.*[^s])s$", lambda m: m[1] or m[2], word) for word in head.split()]
    found = list(scene.items)
    for word in words:
        for values, attribute in ((COLOURS, "colour"), (SHAPES, "shape"), (SIZES, "size")):
            if word in values:
                found = [item for item in found if getattr(item, attribute) == word]
    assert set(words) <= {*COLOURS, *SHAPES, *SIZES, "the", "thing", "shape", "a", "an", "anything"}, phrase
    return [item for item in found if cell is None or CELLS[3 * _column_row(item)[1] + _column_row(item)[0]] == cell]


def _one(scene: Scene, phrase: str) -> Item:
    (item,) = _named(scene, phrase)
    return item


def _match(patterns: tuple[str, ...], text: str) -> re.Match[str]:
    found = [match for pattern in patterns if (match := re.fullmatch(pattern, text))]
    assert len(found) == 1, text
    return found[0]


def _attribute(scene: Scene, asked: Question) -> str:
    patterns = (
        r"(?:What|Which) (?P<kind>colour|shape|size) is (?P<name>.*)\?",
        r"What is the (?P<kind>colour|shape) of (?P<name>.*)\?",
        r"How big is (?P<name>.*)\?",
        r"Is (?P<name>.*) small or large\?",
    )
    match = _match(patterns, asked.text)
    return str(getattr(_one(scene, match["name"]), match.groupdict().get("kind") or "size"))


def _position(scene: Scene, asked: Question) -> str:
    match = _match((r"(?:Where|Where in the picture|In which place) is (.*)\?",), asked.text)
    column, row = _column_row(_one(scene, match[1]))
    return CELLS[3 * row + column]


def _count(scene: Scene, asked: Question) -> str:
    patterns = (r"How many (.*?) are there(?: in all)?\?", r"What is the number of (.*)\?", r"Count the (.*)\.")
    return str(len(_named(scene, _match(patterns, asked.text)[1])))


def _relation(scene: Scene, asked: Question) -> str:
    near = "|".join(sorted(SIDES, key=len, reverse=True))
    beside = re.fullmatch(rf"What (colour|shape) is the (?:shape|thing) just ({near}) (the .*)\?", asked.text)
    if beside:
        (column, row), (dx, dy) = _column_row(_one(scene, beside[3])), SIDES[beside[2]]
        (other,) = [item for item in scene.items if _column_row(item) == (column + dx, row + dy)]
        return str(getattr(other, beside[1]))
    relations = "|".join(sorted((*SIDES, "bigger than", "smaller than"), key=len, reverse=True))
    match = _match((rf"Is (the .*?) ({relations}) (the .*)\?",), asked.text)
    first, second = _one(scene, match[1]), _one(scene, match[3])
    if match[2] in SIDES:
        (dx, dy), here, there = SIDES[match[2]], _centre(first), _centre(second)
        difference = (here[0] - there[0]) * dx + (here[1] - there[1]) * dy
        return "yes" if difference > 0 else "no"
    wider = first.box[2] - first.box[0] > second.box[2] - second.box[0]
    return "yes" if wider == (match[2] == "bigger than") else "no"


def _existence(scene: Scene, asked: Question) -> str:
    match = _match((r"(?:Is there|Can you see) (.*?)(?: in the picture)?\?",), asked.text)
    return "yes" if _named(scene, match[1]) else "no"


def _reading(scene: Scene, asked: Question) -> str:
    found = list(scene.writings)
    if "word" in asked.text:
        found = [writing for writing in found if not writing.text.isdigit()]
    if "number" in asked.text:
        found = [writing for writing in found if writing.text.isdigit()]
    cell = _cell_in(asked.text.rstrip("?."))
    if cell is not None:
        found = [w for w in found if CELLS[3 * _column_row(w)[1] + _column_row(w)[0]] == cell]
    (writing,) = found
    return writing.text


def _chart(scene: Scene, asked: Question) -> str:
    chart = scene.chart
    assert chart is not None
    if chart.kind == "line":
        return chart.labels[0] if "colour" in asked.text else _trend(chart)
    bars = dict(zip(chart.labels, chart.values, strict=True))
    colours = re.findall("|".join(COLOURS), asked.text)
    if "taller" in asked.text:
        return "yes" if bars[colours[0]] > bars[colours[1]] else "no"
    if colours:
        return str(bars[colours[0]])
    if "How many" in asked.text:
        return str(len(bars))
    ordered = sorted(bars, key=bars.__getitem__)
    highest = "tallest" in asked.text or "highest" in asked.text
    best = ordered[-1] if highest else ordered[0]
    assert list(bars.values()).count(bars[best]) == 1
    return best


def _trend(chart: Chart) -> str:
    rises = [after > before for before, after in pairwise(chart.values)]
    turns = sum(one != two for one, two in pairwise(rises))
    return {(True, 0): "rising", (False, 0): "falling", (True, 1): "peak", (False, 1): "valley"}[rises[0], turns]


AGAIN = {
    "attribute": _attribute,
    "count": _count,
    "position": _position,
    "relation": _relation,
    "existence": _existence,
    "reading": _reading,
    "chart": _chart,
}


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_found_again_from_the_text_and_the_boxes(split: Split) -> None:
    families: Counter[str] = Counter()
    for seed in range(250):
        scene = make_scene(seed, split, BUSY)
        for asked in ask(scene, random.Random(seed), count=20):
            assert AGAIN[asked.family](scene, asked) == asked.answer, (seed, asked)
            assert asked.answer in asked.choices
            assert asked.chance >= 1 / len(asked.choices)
            assert asked.answer == asked.answer.lower()
            families[asked.family] += 1
    assert set(families) == set(FAMILIES)


def test_questions_are_fixed_by_their_generator_and_all_different() -> None:
    scene = make_scene(5, "train")
    asked = ask(scene, random.Random(1), count=12)
    assert asked == ask(scene, random.Random(1), count=12)
    assert len(asked) == 12
    assert len({question.text for question in asked}) == 12
    assert {question.family for question in ask(scene, random.Random(1), ("count",), 3)} == {"count"}


def test_no_answer_is_preferred_within_a_kind_of_question() -> None:
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    chances: dict[tuple[str, str], float] = {}
    for seed in range(1_000):
        scene = make_scene(seed, "train", WorldStyle(chart=0.2))
        for asked in ask(scene, random.Random(seed), count=12):
            kind = (asked.family, str(asked.detail["kind"]))
            counted[kind][asked.answer] += 1
            chances[kind] = asked.chance
    assert max(counted.pop(("reading", "word")).values()) <= 8
    for kind, answers in counted.items():
        total = sum(answers.values())
        share = max(answers.values()) / total
        spread = 3 * (chances[kind] * (1 - chances[kind]) / total) ** 0.5
        uneven = 1.9 if kind[0] == "count" and kind[1] != "all" else 1.06
        assert share <= uneven * chances[kind] + spread, (kind, total, answers.most_common(3))


def test_held_out_pairs_are_asked_about_in_their_own_split_alone() -> None:
    def asked_pairs(split: Split) -> set[tuple[str, str]]:
        pairs = set()
        for seed in range(200):
            for asked in ask(make_scene(seed, split), random.Random(seed), ("existence",), 4):
                words = asked.text.rstrip("?").split()
                pairs |= {(c, s) for c, s in pairwise(words) if c in COLOURS and s in SHAPES}
        return pairs

    assert not asked_pairs("train") & HELD_OUT
    assert asked_pairs("test_combos") >= HELD_OUT


def test_skewed_existence_says_yes_as_often_as_each_objects_prior() -> None:
    yes: Counter[float] = Counter()
    total: Counter[float] = Counter()
    for seed in range(3_000):
        scene = make_scene(seed, "train", WorldStyle(writing=0.0, chart=0.0))
        for asked in ask(scene, random.Random(seed), ("existence",), 3, "skewed"):
            colour, shape = re.findall("|".join((*COLOURS, *SHAPES)), asked.text)
            prior = yes_prior(colour, shape)
            assert asked.detail["prior"] == prior
            total[prior] += 1
            yes[prior] += asked.answer == "yes"
    assert sorted(total) == [0.1, 0.3, 0.5, 0.7, 0.9]
    for prior in total:
        assert yes[prior] / total[prior] == pytest.approx(prior, abs=0.06)


def test_reading_questions_know_their_glyph_height() -> None:
    style = WorldStyle(writing=1.0, chart=0.0, glyph_heights=(5.0, 16.0))
    heights = Counter(
        asked.detail["glyph_px"]
        for seed in range(100)
        for asked in ask(make_scene(seed, "train", style), random.Random(seed), ("reading",), 1)
    )
    assert set(heights) == {5.0, 16.0}


def test_mistakes_are_refused_with_a_way_out() -> None:
    scene = make_scene(0, "train")
    with pytest.raises(ValueError, match="Question families are some of"):
        ask(scene, random.Random(0), ("colour",))
    with pytest.raises(ValueError, match="count of 1 or more"):
        ask(scene, random.Random(0), count=0)
    with pytest.raises(ValueError, match="Priors are one of"):
        inspect.unwrap(ask)(scene, random.Random(0), priors="odd")  # type: ignore[arg-type]
