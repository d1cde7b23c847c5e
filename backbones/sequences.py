"""Documents as token sequences, with a weight on every token that is to be predicted."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbones.documents import Document, Turn
from backbones.hints import Hint

FREE = ("describe", "short")
"""Families whose answers are whole sentences."""
FREE_WEIGHTS = {"describe": 0.8, "short": 0.3}
"""Weight of each of their tokens: a scene said anew follows from its context, an author's first sentence hardly."""


RANDOM, TOLD = 0.03, 0.15
"""Weight of a token that is no answer: of a scene drawn at random, and of human text."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Where one answer stands in its sequence: tokens `first` up to, not including, `end` (its end mark included)."""

    family: str
    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """Ids, the weight of predicting each of them, how far the context reaches, and the answers."""

    source: str
    ids: list[int]
    weights: list[float]
    context: int
    answers: list[Answer]
    bags: list[tuple[int, ...]]
    """The word bags at positions 1, 2, ... where the context is a grid of them; their first words stand in `ids`."""
    hints: list[tuple[int, Hint]]
    """Positions of the tokens that a hint is given at."""


class Encoder:
    """Tokenises documents piece by piece, as the library does."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.pieces = lru_cache(maxsize=50_000)(self._pieces)
        self.ends = lru_cache(maxsize=50_000)(self._ends)

    def _pieces(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends(self, text: str) -> tuple[int, ...]:
        """Where in the text each of its tokens ends."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return tuple(end for _, end in offsets)

    def place(self, text: str, end: int) -> int:
        """The token that holds the last character of text[:end]."""
        return next(place for place, last in enumerate(self.ends(text)) if last >= end)

    def question(self, turn: Turn, *, after_context: bool) -> list[int]:
        """The user's part of a turn."""
        return [*self.pieces("\n" if after_context else ""), *self.pieces(f"Question: {turn.question} Answer:")]

    def hints_of(self, turn: Turn, asked_end: int) -> list[tuple[int, Hint]]:
        """Where the hints of a turn's question stand, whose tokens end at this position."""
        prompt = f"Question: {turn.question} Answer:"
        before = asked_end - len(self.pieces(prompt))
        return [(before + self.place(prompt, len("Question: ") + hint.end), hint) for hint in turn.hints]

    def encode(self, document: Document, rng: random.Random, *, longest: int = 512) -> Sequence:
        """A document; what is no answer weighs little, a scene's tokens (drawn at random) least.

        Turns that do not fit in `longest` are left out.
        """
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        ids = [start, *self.pieces.__wrapped__(document.context)][: longest - 100]
        bags = [tuple(piece for word in slot for piece in self.pieces(word)) for slot in document.slots]
        rest = RANDOM if document.source == "world" else TOLD
        if bags:
            ids, rest = [start, *(bag[0] for bag in bags)], 0.0
        weights = [rest if document.turns else 0.5] * len(ids)
        if not document.turns:
            ids, weights = [*ids, end], [*weights, 0.5]
        context, answers = len(ids), []
        hints = [(1 + self.place(document.context, hint.end), hint) for hint in document.hints]
        hints = [(place, hint) for place, hint in hints if place < context]
        for turn in document.turns:
            asked = self.question(turn, after_context=len(ids) == context)
            said = [*self.pieces(f" {turn.answer}"), end]
            if len(ids) + len(asked) + len(said) > longest:
                break
            ids += asked
            hints += self.hints_of(turn, len(ids))
            weights += [rest] * len(asked)
            answers.append(Answer(family=turn.family, first=len(ids), end=len(ids) + len(said)))
            ids += said
            weights += [FREE_WEIGHTS.get(turn.family, 1.0)] * len(said)
        return Sequence(
            source=document.source,
            ids=ids,
            weights=weights,
            context=context,
            answers=answers,
            bags=bags,
            hints=hints,
        )


def pad(
    sequences: list[Sequence], padding: int
) -> tuple[Int[Tensor, "rows length"], Float[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """Right-padded ids, the weight of predicting each, and where the context stands (never the start mark)."""
    longest = max(len(one.ids) for one in sequences)
    ids = torch.full((len(sequences), longest), padding)
    weights = torch.zeros(len(sequences), longest)
    context = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for row, one in enumerate(sequences):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        weights[row, : len(one.ids)] = torch.tensor(one.weights)
        context[row, 1 : one.context] = True
    weights[:, 0] = 0.0
    return ids, weights, context
