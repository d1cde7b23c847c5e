"""Questions about what is written and what is charted."""

from __future__ import annotations

import random

from isthmus.data.sources.world.describe import AT
from isthmus.data.sources.world.questions.question import Detail, Question, question
from isthmus.data.sources.world.scene import COLOURS, TRENDS, Chart, Scene
from isthmus.data.sources.world.style import REFERENCE_PX
from isthmus.data.sources.world.words import NUMBERS, WORDS

DIGITS = ("1", "2", "3", "4", "5", "6", "7", "8", "9")
ONE_DIGIT = 1 / 30
"""How often any one-digit number is written: a third of the numbers have one digit."""
BARS = ("2", "3", "4", "5")


def ask_reading(scene: Scene, rng: random.Random) -> Question | None:
    """What is written; `glyph_px` in the detail is the capital's height in a picture of 96 pixels."""
    if not scene.writings:
        return None
    writing = rng.choice(scene.writings)
    kind = "number" if writing.text.isdigit() else "word"
    place = f" {AT[writing.cell]}"
    alone = len(scene.writings) == 1
    same = [other for other in scene.writings if other.text.isdigit() == writing.text.isdigit()]
    texts = [f"What is written{place}?", f"Which {kind} is written{place}?"]
    if alone:
        texts += ["What is written?", "What does the writing say?"]
    if len(same) == 1:
        texts += [f"What {kind} is written?", f"Read the {kind}."]
    choices = NUMBERS if kind == "number" else WORDS
    chance = ONE_DIGIT if kind == "number" else 1 / len(WORDS)
    detail: Detail = {
        "glyph_px": round(writing.glyph_height * REFERENCE_PX, 2),
        "glyph_height": writing.glyph_height,
        "font": writing.font,
    }
    return question(f"reading: {kind}", rng.choice(texts), writing.text, choices, detail, chance)


def ask_chart(scene: Scene, rng: random.Random) -> Question | None:
    """A bar's value, the tallest or shortest bar, how many bars, a line's trend or colour."""
    chart = scene.chart
    if chart is None:
        return None
    if chart.kind == "line":
        if rng.random() < 0.3:
            return question("chart: line colour", "What colour is the line?", chart.labels[0], COLOURS)
        text = rng.choice(
            (
                "Is the line rising, falling, a peak or a valley?",
                "What does the line show: rising, falling, peak or valley?",
                "Which trend does the line have?",
            )
        )
        return question("chart: trend", text, chart.trend, TRENDS)
    return _ask_bars(chart, rng)


def _ask_bars(chart: Chart, rng: random.Random) -> Question | None:
    kind = rng.choice(("value", "value", "tallest", "shortest", "bars", "taller"))
    if kind == "bars":
        return question(f"chart: {kind}", "How many bars are there?", str(len(chart.labels)), BARS)
    if kind == "taller":
        first, second = rng.sample(range(len(chart.labels)), 2)
        if chart.values[first] == chart.values[second]:
            return None
        text = f"Is the {chart.labels[first]} bar taller than the {chart.labels[second]} bar?"
        answer = "yes" if chart.values[first] > chart.values[second] else "no"
        return question(f"chart: {kind}", text, answer, ("yes", "no"))
    if kind == "value":
        place = rng.randrange(len(chart.labels))
        text = rng.choice(("What is the value of the {} bar?", "How high is the {} bar?")).format(chart.labels[place])
        return question(f"chart: {kind}", text, str(chart.values[place]), DIGITS, {"numbered": int(chart.numbered)})
    end = max(chart.values) if kind == "tallest" else min(chart.values)
    if chart.values.count(end) > 1:
        return None
    text = rng.choice(("Which bar is {}?", "What colour is the {} bar?")).format(
        kind if rng.random() < 0.5 else {"tallest": "highest", "shortest": "lowest"}[kind]
    )
    text = text.replace("Which bar is ", "Which bar is the ")
    return question(f"chart: {kind}", text, chart.labels[chart.values.index(end)], COLOURS)
