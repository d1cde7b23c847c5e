"""Is a short answer right? Exact match, edit similarity (ANLS) and relaxed numbers, after the usual normalisation.

Sources: ANLS is from DocVQA (arXiv:1907.00490), relaxed accuracy from ChartQA (arXiv:2203.10244). Checked against the
reference functions of google-research/pix2struct (`metrics.py`), whose borderline cases are kept.
"""

import re
import string
from collections.abc import Callable, Sequence
from typing import Literal

from isthmus.data.boxes import STEPS, parse_boxes
from isthmus.evaluate.grounding import box_match
from isthmus.evaluate.vqa import vqa_accuracy, vqa_forms
from isthmus.evaluate.yes_no import gqa_answer, gqa_match, read_yes_no, yes_no_match

Metric = Literal["exact", "anls", "relaxed", "vqa", "yes-no", "gqa", "box"]
Forms = tuple[str, tuple[str, ...]]
"""A prediction, and its answers."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = frozenset({"a", "an", "the"})
_WIDE = "\u3001\u3002\uff0c\uff01\uff1f\uff1a\uff1b\uff08\uff09\u300a\u300b\u300c\u300d\u201c\u201d\u2018\u2019\u2026"
"""Comma, full stop, brackets and quotation marks of Chinese and Japanese, and curly ones."""
_EDGES = string.punctuation.replace("%", "").replace("-", "") + _WIDE + string.whitespace


def first_answer(text: str) -> str:
    """The answer alone: what a model wrote up to the first line break or the next question it invents."""
    cut = re.split(r"\n|Question:|</s>", text.strip(), maxsplit=1)[0]
    return cut.strip()


def normalise(text: str) -> str:
    """Lower case, single spaces, no articles, no punctuation at the edges of words, number words as digits."""
    words = (word.strip(_EDGES) for word in text.lower().split())
    kept = [_NUMBER_WORDS.get(word, word) for word in words if word and word not in _ARTICLES]
    return " ".join(kept)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the normalised prediction equals one of the normalised answers, else 0.0."""
    given = normalise(prediction)
    return float(any(given == normalise(answer) for answer in answers))


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of characters."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def anls(prediction: str, answers: Sequence[str], threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity of one prediction: the best over the answers, in 0..1.

    A similarity counts when distance / longer length is below `threshold`; exactly at it scores 0, as in the
    reference code (some evaluation suites keep it).
    """
    best = 0.0
    given = prediction.lower()
    for answer in answers:
        wanted = answer.lower()
        longest = max(len(given), len(wanted))
        share = edit_distance(given, wanted) / longest if longest else 0.0
        best = max(best, 1.0 - share if share < threshold else 0.0)
    return best


def anls_of_challenge(prediction: str, answers: Sequence[str]) -> float:
    """ANLS as the DocVQA challenge's script has it: white space collapsed first, a similarity of exactly 0.5 kept.

    The distance is divided by the longer of the texts as they were given, before anything was collapsed.
    """
    given = " ".join(prediction.lower().split())
    shares = []
    for answer in answers:
        longest = max(len(prediction), len(answer))
        distance = edit_distance(given, " ".join(answer.lower().split()))
        shares.append(distance / longest if longest else 0.0)
    similarity = 1.0 - min(shares)
    return similarity if similarity >= 0.5 else 0.0


def _as_number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, answers: Sequence[str], tolerance: float = 0.05) -> float:
    """1.0 when a number is within `tolerance` (relative, inclusive) of an answer, or a text equals it.

    "NN%" is read as NN / 100; a zero answer is compared as text.
    """
    for answer in answers:
        given, wanted = _as_number(prediction), _as_number(answer)
        if given is not None and wanted:
            if abs(given - wanted) / abs(wanted) <= tolerance:
                return 1.0
        elif prediction.lower() == answer.lower():
            return 1.0
    return 0.0


METRICS: dict[Metric, Callable[[str, Sequence[str]], float]] = {
    "exact": exact_match,
    "anls": anls,
    "relaxed": relaxed_match,
    "vqa": vqa_accuracy,
    "yes-no": yes_no_match,
    "gqa": gqa_match,
    "box": box_match,
}


def _relaxed_forms(prediction: str, answers: Sequence[str]) -> Forms:
    given = _as_number(prediction)
    wanted = [_as_number(answer) if given is not None else None for answer in answers]
    said = f"{given:.10g}" if wanted and all(wanted) else prediction.lower()
    return said, tuple(f"{one:.10g}" if one else answer.lower() for one, answer in zip(wanted, answers, strict=True))


def _box_form(text: str) -> str:
    """The corners of the first box as they are read; empty where there is none."""
    corners = [round(edge * (STEPS - 1)) for box in parse_boxes(text)[:1] for edge in box.box]
    return "({},{}),({},{})".format(*corners) if corners else ""


FORMS: dict[Metric, Callable[[str, Sequence[str]], Forms]] = {
    "exact": lambda prediction, answers: (normalise(prediction), tuple(map(normalise, answers))),
    "anls": lambda prediction, answers: (prediction.lower(), tuple(answer.lower() for answer in answers)),
    "relaxed": _relaxed_forms,
    "vqa": vqa_forms,
    "yes-no": lambda prediction, answers: (read_yes_no(prediction), tuple(answers)),
    "gqa": lambda prediction, answers: (gqa_answer(prediction), tuple(answers)),
    "box": lambda prediction, answers: (_box_form(prediction), tuple(map(_box_form, answers))),
}
"""What each metric makes of a prediction and its answers before it compares them."""


def compared(prediction: str, answers: Sequence[str], metric: Metric = "exact") -> Forms:
    """The prediction and the answers in the forms that the metric compares: normalised texts, numbers, corners."""
    return FORMS[metric](prediction, answers)


def score(prediction: str, answers: Sequence[str], metric: Metric = "exact") -> float:
    """The score of one prediction in 0..1. Raises ValueError when there is no answer to compare with."""
    if not answers:
        raise ValueError(f"The prediction {prediction!r} has no answers to be compared with: give at least one.")
    return METRICS[metric](prediction, answers)
