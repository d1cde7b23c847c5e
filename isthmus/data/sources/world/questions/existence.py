"""Is there such a thing: even, or with a yes-rate of each object's own."""

from __future__ import annotations

import hashlib
import random

from isthmus.data.sources.world.describe import with_article
from isthmus.data.sources.world.plan import ALLOWED, COMPANIONS, Kind
from isthmus.data.sources.world.questions.question import Question, question
from isthmus.data.sources.world.scene import COLOURS, HELD_OUT, SHAPES, Scene

YES_NO = ("yes", "no")
PRIORS = (0.1, 0.3, 0.5, 0.7, 0.9)
_EVERY = (*ALLOWED, *sorted(HELD_OUT))


def yes_prior(colour: str, shape: str) -> float:
    """The share of skewed questions about this object whose answer is yes: one of `PRIORS`, fixed for each object."""
    place = int.from_bytes(hashlib.blake2b(f"{colour} {shape}".encode(), digest_size=4).digest(), "big")
    return PRIORS[place % len(PRIORS)]


def ask_existence(scene: Scene, rng: random.Random) -> Question | None:
    """Yes or no, evenly, about an object, a shape or a colour; half the absent objects are near misses."""
    if not scene.items:
        return None
    wants = rng.random() < 0.5
    kind = rng.choice(("object", "object", "shape", "colour"))
    if kind == "object" or scene.chart is not None:
        return _ask_object(scene, rng, wants)
    values = SHAPES if kind == "shape" else COLOURS
    present = {str(getattr(item, kind)) for item in scene.items}
    options = [value for value in values if (value in present) == wants]
    if not options:
        return None
    value = rng.choice(options)
    noun = with_article(value) if kind == "shape" else f"anything {value}"
    return question(f"existence: {kind}", _text(noun, rng), "yes" if wants else "no", YES_NO, {"prior": 0.5})


def _text(noun: str, rng: random.Random) -> str:
    return rng.choice(("Is there {}?", "Is there {} in the picture?", "Can you see {}?")).format(noun)


def _candidates(scene: Scene) -> tuple[list[Kind], list[Kind]]:
    """The objects that are there and those that are not, without held-out pairs where the split has none.

    Beside a chart no square is asked about: a short bar looks like one.
    """
    there = {(item.colour, item.shape) for item in scene.items}
    every = _EVERY if scene.split == "test_combos" else ALLOWED
    if scene.chart is not None:
        every = tuple(kind for kind in every if kind[1] != "square")
    return [kind for kind in every if kind in there], [kind for kind in every if kind not in there]


def _ask_object(scene: Scene, rng: random.Random, wants: bool) -> Question | None:
    present, absent = _candidates(scene)
    if wants:
        if not present:
            return None
        return _object_question(rng.choice(present), scene, rng, prior=0.5)
    colours, shapes = {colour for colour, _ in present}, {shape for _, shape in present}
    near = [(colour, shape) for colour, shape in absent if colour in colours or shape in shapes]
    return _object_question(rng.choice(near if near and rng.random() < 0.5 else absent), scene, rng, prior=0.5)


def ask_skewed_existence(scene: Scene, rng: random.Random) -> Question | None:
    """One draw of a question about an object, kept so that each object's share of yes is its `yes_prior`."""
    if not scene.items:
        return None
    present, absent = _candidates(scene)
    wants = rng.random() < 0.5
    if wants and not present:
        return None
    kind = rng.choice(present if wants else absent)
    prior = yes_prior(*kind)
    return _object_question(kind, scene, rng, prior=prior) if rng.random() < (prior if wants else 1 - prior) else None


def _object_question(kind: tuple[str, str], scene: Scene, rng: random.Random, *, prior: float) -> Question:
    """`companion` in the detail says whether an object that brings this one along is in the scene."""
    present = {(item.colour, item.shape) for item in scene.items}
    companion = any(COMPANIONS.get(other) == kind for other in present)
    text = _text(with_article(" ".join(kind)), rng)
    answer = "yes" if kind in present else "no"
    return question("existence: object", text, answer, YES_NO, {"prior": prior, "companion": int(companion)})
