"""The texts that the language models learn from: described scenes with questions, NLVR boxes, textbook figures.

A document is a context and turns of question and answer. Pieces are tokenised apart, as the library does it, so that
a connector's tokens can later stand where the context stood.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from backbones.bags import scene_slots
from backbones.eye_regions import nlvr_text
from backbones.hints import Hint, context_hints, question_hints
from backbones.real import NLVR_COLOURS, NLVR_SIZES, ORDERS, Boxes, Figure
from isthmus.data.sources.world import FAMILIES, Split, WorldStyle, ask, describe, make_scene
from isthmus.data.sources.world.describe import DescribeStyle, Order

TINY = WorldStyle(items=(2, 3), writing=0.0, chart=0.0)
FIRST_RELATIONS = ("left of", "above", "bigger")
"""A relation and its opposite together tell nothing by either item alone; one of each pair first gives a foothold."""
FIRST_FAMILIES = ("attribute", "position")
"""To look up one thing by another is learnt first, by itself: all other families build on it."""
ALL_FAMILIES = (*FAMILIES, *("relation",) * 4, *("count",) * 7, *("attribute", "position") * 2, "reading")
"""The harder families are asked more often."""
SHORT = WorldStyle(items=(1, 4), writing=0.2, chart=0.08)
FULL = WorldStyle(items=(1, 6), writing=0.3, chart=0.12)
STYLES: tuple[DescribeStyle, ...] = ("list", "list", "list", "prose", "prose", "prose", "counted", "telegraph")
ANEW: tuple[DescribeStyle, ...] = ("telegraph", "telegraph", "counted", "counted", "list", "prose")
TYPE_QUESTIONS = ("What kind of figure is this?", "What kind of picture is this?")
SUBJECT_QUESTIONS = ("Which subject is this from?", "Which subject is this figure from?")
DESCRIBE_QUESTIONS = ("Describe the picture.", "What does the picture show?", "Describe this figure.")
TRUTH_QUESTIONS = ("Is it true that: {}", "Is this true? {}")
NUMBERS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12")
NLVR_SHAPES = ("circle", "square", "triangle")
PLACES = ("left", "middle", "right")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question with its answer, and the family it is measured under."""

    question: str
    answer: str
    family: str
    hints: tuple[Hint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """A context ("" for none) and the turns about it; a plain text has no turns."""

    source: str
    context: str
    turns: tuple[Turn, ...]
    slots: tuple[tuple[str, ...], ...] = ()
    """The context as a grid of word bags (`backbones.bags`), which then stands in place of the text."""
    hints: tuple[Hint, ...] = ()
    """What mentions in the context refer to."""


class Library:
    """Draws documents of every source."""

    def __init__(
        self, figures: list[Figure], boxes: list[Boxes], seed: int, mixed_from: float = 0.1, bags: float = 0.0
    ) -> None:
        self.figures, self.boxes, self.mixed_from, self.bags = figures, boxes, mixed_from, bags
        self.rng = random.Random(seed)
        self.scene_seed = seed * 100_000_000

    def draw(self, progress: float = 1.0) -> Document:
        """At first scenes of two or three things alone; after a third world 86%, textbook 7%, NLVR 7%."""
        chance = self.rng.random()
        if chance < 0.86 or progress < 0.33:
            self.scene_seed += 1
            small = progress < 0.2 or (progress < 0.4 and self.rng.random() < 0.7)
            style = TINY if small else SHORT if progress < 0.5 else FULL
            relations = FIRST_RELATIONS if progress < 0.3 else None
            families = FIRST_FAMILIES if progress < 0.2 else ALL_FAMILIES
            manners = STYLES if progress >= self.mixed_from else STYLES[:1]
            return world_document(
                self.scene_seed,
                "train",
                self.rng,
                style=style,
                families=families,
                manners=manners,
                bags=self.bags,
                relations=relations,
            )
        if chance < 0.93:
            return textbook_document(self.rng.choice(self.figures), self.rng)
        return nlvr_document(self.rng.choice(self.boxes), self.rng)


def world_document(
    seed: int,
    split: Split,
    rng: random.Random,
    *,
    style: WorldStyle = FULL,
    families: tuple[str, ...] = FAMILIES,
    manners: tuple[DescribeStyle, ...] = STYLES,
    count: int = 10,
    bags: float = 0.0,
    relations: tuple[str, ...] | None = None,
) -> Document:
    """A described scene and up to `count` questions; three documents in ten end by saying it in another manner.

    Saying it anew is a lookup at nearly every token, which teaches more per token than any question. A share `bags` of
    the scenes without a chart is a grid of word bags. With `relations` no other relation is asked about.
    """
    scene = make_scene(seed, split, style)
    order: Order = "raster" if rng.random() < 0.7 else "shuffled"
    context = describe(scene, rng, rng.choice(manners), order)
    asked = ask(scene, rng, families, count)
    if relations is not None:
        asked = [one for one in asked if one.detail.get("relation", relations[0]) in relations]
    rng.shuffle(asked)
    turns = [
        Turn(question=one.text, answer=one.answer, family=one.family, hints=question_hints(one.text, one.answer, scene))
        for one in asked
    ]
    if families != FIRST_FAMILIES and rng.random() < 0.3:
        other = describe(scene, rng, rng.choice(ANEW))
        turns.append(Turn(question=rng.choice(DESCRIBE_QUESTIONS[:2]), answer=other, family="describe"))
    slots = scene_slots(scene, rng) if scene.chart is None and rng.random() < bags else ()
    hints = () if slots else context_hints(context)
    return Document(source="world", context=context, turns=tuple(turns), slots=slots, hints=hints)


def _clip(text: str, words: int) -> str:
    parts = text.split(" ")
    return text if len(parts) <= words else " ".join(parts[:words])


def textbook_document(figure: Figure, rng: random.Random) -> Document:
    """A figure's description with questions, or one of its texts alone."""
    chance = rng.random()
    if chance < 0.35:
        text = rng.choice((figure.description, figure.caption or figure.short))
        return Document(source="textbook", context=_clip(text, 150), turns=())
    turns = [Turn(question=rng.choice(SUBJECT_QUESTIONS), answer=figure.subject, family="subject")]
    if figure.type != "other":
        turns.append(Turn(question=rng.choice(TYPE_QUESTIONS), answer=figure.type, family="type"))
    rng.shuffle(turns)
    if rng.random() < 0.5:
        turns.append(Turn(question=rng.choice(DESCRIBE_QUESTIONS), answer=_clip(figure.short, 40), family="short"))
    return Document(source="textbook", context=_clip(figure.description, 100), turns=tuple(turns))


def nlvr_document(example: Boxes, rng: random.Random, *, exact: int = 5) -> Document:
    """The boxes in words, the human sentence, and exact questions on what the boxes hold."""
    order = rng.choice(ORDERS)
    sentence = example.sentence[0].lower() + example.sentence[1:]
    truth = rng.choice(TRUTH_QUESTIONS).format(sentence)
    turns = [Turn(question=truth, answer="yes" if example.label else "no", family="truth")]
    turns += [_exact(example, order, rng) for _ in range(exact)]
    rng.shuffle(turns)
    return Document(source="nlvr", context=nlvr_text(example, order), turns=tuple(turns))


def _exact(example: Boxes, order: tuple[int, ...], rng: random.Random) -> Turn:
    """A count over all boxes or in one of them, or whether something is there."""
    slot = rng.randrange(3)
    everywhere = rng.random() < 0.5
    held = [item for which in example.boxes for item in which] if everywhere else list(example.boxes[order[slot]])
    place = "" if everywhere else f" in the {PLACES[slot]} box"
    colour = rng.choice(("", *sorted(set(NLVR_COLOURS.values()))))
    shape = rng.choice(("", *NLVR_SHAPES))
    size = rng.choice(("", "", *NLVR_SIZES.values()))
    words = [word for word in (size, colour) if word]
    number = sum(
        (not colour or item.colour == colour)
        and (not shape or item.shape == shape)
        and (not size or NLVR_SIZES[item.size] == size)
        for item in held
    )
    if rng.random() < 0.6:
        things = " ".join([*words, f"{shape}s" if shape else "objects"])
        return Turn(question=f"How many {things} are there{place}?", answer=str(number), family="box count")
    thing = " ".join([*words, shape if shape else "object"])
    article = "an" if thing[0] in "aeiou" else "a"
    return Turn(
        question=f"Is there {article} {thing}{place}?", answer="yes" if number else "no", family="box existence"
    )
