"""The question of a chat in a connector's own tokens, for connectors that look at an image for an answer.

Source: InstructBLIP (arXiv:2305.06500), section 2.3; salesforce/LAVIS `blip2_vicuna_instruct.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from isthmus.data.prompts import numbered
from isthmus.data.sample import ANY_MARK, Sample
from isthmus.features import Text

QuestionTurn = Literal["last-question", "first-question"]
ReadText = Callable[[Sequence[Sample], Sequence[int]], Text]
"""Makes a row of text of every sample, given how many of its exchanges are kept."""


def question(sample: Sample, turn: QuestionTurn, num_exchanges: int) -> str:
    """The words of the chosen user turn among the exchanges that are kept, without marks of images, videos or sounds.

    Empty when the user says nothing.
    """
    asked = [one.text for exchange, one in numbered(sample.turns) if one.role == "user" and exchange < num_exchanges]
    if not asked:
        return ""
    chosen = asked[-1] if turn == "last-question" else asked[0]
    return " ".join(ANY_MARK.sub(" ", chosen).split())


def instructions(
    samples: Sequence[Sample], num_exchanges: Sequence[int], *, tokenizer: Any, turn: QuestionTurn, max_tokens: int
) -> Text:
    """A row of text of every sample, with the tokenizer's marks for begin and end, padded on the right.

    A longer text loses its beginning, never its marks: a question ends with what is asked.
    """
    begin = [one for one in (tokenizer.cls_token_id, tokenizer.bos_token_id) if one is not None][:1]
    end = [one for one in (tokenizer.sep_token_id, tokenizer.eos_token_id) if one is not None][:1]
    room = max_tokens - len(begin) - len(end)
    if room < 1:
        raise ValueError(f"max_tokens={max_tokens} leaves no room for a word of the instruction. Raise it.")
    texts = [question(sample, turn, kept) for sample, kept in zip(samples, num_exchanges, strict=True)]
    found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    rows = [[*begin, *ids[-room:], *end] for ids in found]
    length = max(len(row) for row in rows)
    padding = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    return Text(
        ids=torch.tensor([[*row, *([padding] * (length - len(row)))] for row in rows]),
        mask=torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows]),
    )
