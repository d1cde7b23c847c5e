"""Accuracy by what an item's detail says (the height of a digit, say), for every arm and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from isthmus.data.sample import Sample
from isthmus.evaluate.record import Answer

Value = str | int | float


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """One task in parts: the items of each value of a detail."""

    task: str
    title: str
    by: str
    """What the parts differ in, in words."""
    parts: tuple[str, ...]
    counts: tuple[int, ...]
    """Items of every part."""
    accuracy: Mapping[str, Mapping[int, tuple[float, ...]]]
    """Arm -> seed -> accuracy of every part, in 0..1."""

    def of(self, arm: str, part: int) -> list[float]:
        """An arm's accuracy on one part, a value a seed."""
        return [values[part] for _, values in sorted(self.accuracy.get(arm, {}).items())]


def break_down(
    items: Sequence[Sample],
    answers: Mapping[str, Mapping[int, Mapping[str, Answer]]],
    *,
    task: str,
    title: str,
    by: str,
    words: str,
) -> Breakdown | None:
    """The parts of a task by the detail `by` of its items, numbers in their order; None where they do not differ.

    `answers` are arm -> seed -> item -> answer; a run that did not answer every item is left out.

    Raises:
        ValueError: an item without that detail.
    """
    groups: dict[Value, list[str]] = {}
    for item in items:
        detail: Mapping[str, Value] = item.meta.get("detail", {})
        if by not in detail:
            raise ValueError(f"The item {item.id!r} of {task!r} has no detail {by!r} to break accuracy down by.")
        groups.setdefault(detail[by], []).append(item.id)
    if len(groups) < 2:
        return None
    values = sorted(groups, key=lambda value: (isinstance(value, str), value))
    accuracy = {
        arm: {
            seed: tuple(_mean(said, groups[value]) for value in values)
            for seed, said in seeds.items()
            if all(item.id in said for item in items)
        }
        for arm, seeds in answers.items()
    }
    return Breakdown(
        task=task,
        title=title,
        by=words,
        parts=tuple(value if isinstance(value, str) else f"{value:g}" for value in values),
        counts=tuple(len(groups[value]) for value in values),
        accuracy=accuracy,
    )


def _mean(said: Mapping[str, Answer], names: Sequence[str]) -> float:
    return sum(said[name].score for name in names) / len(names)


def breakdowns_to_json(breakdowns: Sequence[Breakdown]) -> str:
    """What `breakdowns.json` holds: every table with the values of all seeds."""
    return json.dumps([asdict(one) for one in breakdowns], indent=1, ensure_ascii=False)
