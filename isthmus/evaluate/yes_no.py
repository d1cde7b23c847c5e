"""POPE, the polling for objects that are not there, and GQA's exact comparison.

Sources: POPE (arXiv:2305.10355), checked against AoiDragon/POPE `evaluate.py`; GQA (arXiv:1902.09506), whose official
script compares strings, after haotian-liu/LLaVA `convert_gqa_for_eval.py` (oracles `metric_pope_gqa*`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

YesNo = Literal["yes", "no"]


@dataclass(frozen=True, kw_only=True)
class PopeScores:
    """Counts with "yes" as the positive answer, and the shares made of them, 0 where there is nothing to divide by."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def total(self) -> int:
        """How many answers there are."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return _share(self.true_positives + self.true_negatives, self.total)

    @property
    def precision(self) -> float:
        """Of the answers "yes", the share that is right."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Of the questions whose answer is "yes", the share that was answered so."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return _share(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """The share of answers "yes"."""
        return _share(self.true_positives + self.false_positives, self.total)


def read_yes_no(answer: str) -> YesNo:
    """What POPE reads in an answer: "No", "no" or "not" as a word of the first sentence is no, all else yes."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def yes_no_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when what POPE reads in the prediction is one of the answers, else 0.0."""
    return float(read_yes_no(prediction) in answers)


def pope(predictions: Sequence[str], labels: Sequence[str]) -> PopeScores:
    """The scores of free-form answers against the labels "yes" and "no".

    Raises:
        ValueError: not a label for each answer, or another label.
    """
    strange = sorted(set(labels) - {"yes", "no"})
    if strange or len(predictions) != len(labels):
        raise ValueError(
            f"POPE wants a label 'yes' or 'no' for each answer, got {len(predictions)} answers, {len(labels)} labels "
            f"and the labels {strange[:4]}."
        )
    pairs = [(read_yes_no(said), label) for said, label in zip(predictions, labels, strict=True)]
    return PopeScores(
        true_positives=pairs.count(("yes", "yes")),
        false_positives=pairs.count(("yes", "no")),
        true_negatives=pairs.count(("no", "no")),
        false_negatives=pairs.count(("no", "yes")),
    )


def gqa_answer(text: str) -> str:
    """A prediction as it is handed to GQA's script: periods at its end dropped, in lower case."""
    return text.rstrip(".").lower()


def gqa_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the converted prediction is exactly one of the answers, else 0.0."""
    return float(gqa_answer(prediction) in answers)


def _share(part: int | float, whole: int | float) -> float:
    return part / whole if whole else 0.0
