"""Choices that a connector draws anew for every step, such as Matryoshka's number of tokens.

They are a function of seed and step: every process draws the same, and a resumed run what an unbroken one drew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from isthmus.branches import Branch, BranchParts
from isthmus.model import Model, VisionLanguageModel


def at_step(model: Model, seed: int, step: int) -> Model:
    """The model with its connectors' choices for this step, by which a batch is laid out."""
    return replace(
        model,
        connector=model.connector.at_step(seed, step),
        video=_branch_at_step(model.video, seed, step),
        audio=_branch_at_step(model.audio, seed, step),
    )


def at_most(model: Model) -> Model:
    """The model with its connectors' choices for the step that takes the most tokens."""
    video, audio = (
        None if branch is None else replace(branch, connector=branch.connector.at_most())
        for branch in (model.video, model.audio)
    )
    return replace(model, connector=model.connector.at_most(), video=video, audio=audio)


@contextmanager
def drawn(model: VisionLanguageModel, seed: int, step: int) -> Iterator[None]:
    """Inside, the built model follows its connectors' choices for this step; after it, those of its config again."""
    own = model.config
    _follow(model, at_step(own, seed, step))
    try:
        yield
    finally:
        _follow(model, own)


def _branch_at_step(branch: Branch | None, seed: int, step: int) -> Branch | None:
    return None if branch is None else replace(branch, connector=branch.connector.at_step(seed, step))


def _follow(model: VisionLanguageModel, config: Model) -> None:
    parts: list[tuple[VisionLanguageModel | BranchParts, Model | Branch]] = [(model, config)]
    parts += [(part, config.branches[name]) for name, part in model.branches.items()]
    for part, chosen in parts:
        part.connector.follow(chosen.connector)
        part.token_grid = chosen.connector.token_grid(part.source.grid)
