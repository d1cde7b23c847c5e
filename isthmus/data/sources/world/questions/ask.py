"""Ask a scene several different questions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from isthmus.data.sources.world.questions.existence import ask_existence, ask_skewed_existence
from isthmus.data.sources.world.questions.question import Asker, Question
from isthmus.data.sources.world.questions.signs import ask_chart, ask_reading
from isthmus.data.sources.world.questions.things import ask_attribute, ask_count, ask_position, ask_relation
from isthmus.data.sources.world.scene import Scene

Priors = Literal["even", "skewed"]
FAMILIES = ("attribute", "count", "position", "relation", "existence", "reading", "chart")
_ASKERS: dict[str, Asker] = {
    "attribute": ask_attribute,
    "count": ask_count,
    "position": ask_position,
    "relation": ask_relation,
    "existence": ask_existence,
    "reading": ask_reading,
    "chart": ask_chart,
}
_ROUNDS = 12


def ask(
    scene: Scene,
    rng: random.Random,
    families: Sequence[str] = FAMILIES,
    count: int = 8,
    priors: Priors = "even",
) -> list[Question]:
    """Up to `count` different questions, the families taken in turn; fewer where the scene offers fewer.

    With `priors="skewed"` existence is asked about objects alone, in about half of the scenes and once in each, so
    that the share of yes is each object's own (`yes_prior`); more draws from one scene would bend the shares.

    Raises:
        ValueError: an unknown family or prior, or a count below 1.
    """
    unknown = [family for family in families if family not in _ASKERS]
    if unknown or not families:
        raise ValueError(f"Question families are some of {FAMILIES}, got {tuple(families)}.")
    if priors not in get_args(Priors):
        raise ValueError(f"Priors are one of {get_args(Priors)}, got {priors!r}.")
    if count < 1:
        raise ValueError(f"ask() needs a count of 1 or more, got {count}.")
    askers = [
        ask_skewed_existence if family == "existence" and priors == "skewed" else _ASKERS[family] for family in families
    ]
    rng.shuffle(askers)
    found: dict[tuple[str, str], Question] = {}
    for turn in range(_ROUNDS):
        if turn == 1:
            askers = [asker for asker in askers if asker is not ask_skewed_existence]
        for asker in askers:
            asked = asker(scene, rng)
            if asked is not None:
                found.setdefault((asked.family, asked.text), asked)
                if len(found) == count:
                    return list(found.values())
    return list(found.values())
