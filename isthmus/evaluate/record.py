"""One scored answer, and the file that keeps them all."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

Control = Literal["none", "mean-image", "shuffled", "text-only"]
"""What the model sees: the image; the mean of the images' features; another item's image; one blank image. Clips and
sounds alike."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was asked, what came, and what it scored (0..1). `prompt` is all the text the model was given.

    `compared` and `compared_with` are the prediction and the answers in the forms that the metric compared; both are
    empty where nothing was compared as text, as in a choice by likelihood, and in files of earlier versions.
    """

    item: str
    family: str
    group: str
    control: Control
    prompt: str
    prediction: str
    answers: tuple[str, ...]
    score: float
    compared: str = ""
    compared_with: tuple[str, ...] = ()


LATER = {"compared": "", "compared_with": ()}
"""Fields that files of earlier versions lack."""


def write_answers(answers: Iterable[Answer], path: Path) -> None:
    """Write JSON lines, one an answer; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
    part.replace(path)


def read_answers(path: Path) -> list[Answer]:
    """Read what `write_answers` wrote. Raises ValueError, naming the line, for anything else."""
    known = {field.name for field in fields(Answer)}
    answers = []
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict) or set(LATER | values) != known:
                raise ValueError(f"wanted the fields {', '.join(sorted(known))}")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not a saved answer: {error}") from error
        lists = {name: tuple(values.get(name, ())) for name in ("answers", "compared_with")}
        answers.append(Answer(**{**values, **lists}))
    return answers


def accuracy(answers: Iterable[Answer]) -> float:
    """The mean score. Raises ValueError when there are no answers."""
    scores = [answer.score for answer in answers]
    if not scores:
        raise ValueError("No answers to average.")
    return sum(scores) / len(scores)
