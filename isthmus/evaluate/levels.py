"""What can be had without looking: chance, the majority class, and the best guess from the question's text alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isthmus.data.sample import ANY_MARK, Sample
from isthmus.evaluate.answers import METRICS, normalise, score


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Accuracies in 0..1 that a model has to pass before it can be said to see."""

    chance: float
    majority: float
    question_only: float

    @property
    def highest(self) -> float:
        """The hardest of the three to pass."""
        return max(self.chance, self.majority, self.question_only)


def question_of(sample: Sample) -> str:
    """The text of the user's turns without marks: all that a blind guesser is shown."""
    said = (ANY_MARK.sub(" ", turn.text) for turn in sample.turns if turn.role == "user")
    return " ".join(" ".join(said).split())


def chance_of(sample: Sample) -> float:
    """`meta["chance"]` where the source computed it, else one over the number of choices, else 0 (open answers)."""
    if "chance" in sample.meta:
        return float(sample.meta["chance"])
    choices = sample.meta.get("choices", ())
    return 1.0 / len(choices) if choices else 0.0


def right_answers(sample: Sample) -> tuple[str, ...]:
    """The accepted answers, normalised. Raises ValueError for a sample that has none."""
    answers = sample.meta.get("answers", ())
    if not answers:
        raise ValueError(f"Sample {sample.id!r} has no meta['answers'], so nothing can be scored on it.")
    return tuple(normalise(str(answer)) for answer in answers)


def _most_common(answers: Iterable[str]) -> str:
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""


def levels(items: Sequence[Sample], reference: Sequence[Sample]) -> Levels:
    """The levels of one family's `items`, with guesses learned on `reference` (samples of the training split).

    The majority guess is the commonest answer of the reference; the question-only guess is the commonest answer to
    the same question text, or to the longest beginning of it that the reference knows.
    """
    if not items:
        raise ValueError("There are no items to compute levels on.")
    chance = sum(chance_of(item) for item in items) / len(items)
    if any(item.meta.get("metric", "exact") not in METRICS for item in items):
        return Levels(chance=chance, majority=chance, question_only=chance)  # a choice among pictures, say
    majority = _most_common(right_answers(sample)[0] for sample in reference)
    guess = QuestionGuesser(reference)
    return Levels(
        chance=chance,
        majority=sum(_worth(majority, item) for item in items) / len(items),
        question_only=sum(_worth(guess(question_of(item)), item) for item in items) / len(items),
    )


def _worth(guess: str, item: Sample) -> float:
    return score(guess, right_answers(item), item.meta.get("metric", "exact"))


class QuestionGuesser:
    """Learns the commonest answer to every question text, and to every beginning of one, from samples."""

    def __init__(self, reference: Sequence[Sample]) -> None:
        seen: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for sample in reference:
            words = tuple(question_of(sample).lower().split())
            answer = right_answers(sample)[0]
            seen[(*words, "")][answer] += 1  # the whole text, apart from the same words as a beginning
            for length in range(len(words) + 1):
                seen[words[:length]][answer] += 1
        self._best = {words: _most_common(counts.elements()) for words, counts in seen.items()}

    def __call__(self, question: str) -> str:
        words = tuple(question.lower().split())
        if (*words, "") in self._best:
            return self._best[(*words, "")]
        for length in range(len(words), -1, -1):
            if words[:length] in self._best:
                return self._best[words[:length]]
        return ""
