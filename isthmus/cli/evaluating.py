"""Evaluate one run from the command line: its tasks, answers, and accuracies beside what can be had without looking."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from rich.table import Table

from isthmus.cli.commands import Evaluate
from isthmus.config import did_you_mean
from isthmus.data.sample import Sample
from isthmus.encoders import CachedEncoder, FeatureCache
from isthmus.encoders.cache import default_folder
from isthmus.evaluate.benchmarks import BENCHMARKS, DEFAULT_TASKS
from isthmus.evaluate.grounding import grounding
from isthmus.evaluate.levels import Levels, levels
from isthmus.evaluate.record import Answer, accuracy, write_answers
from isthmus.evaluate.retrieval import retrieve
from isthmus.evaluate.runner import evaluate
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run

REFERENCE = 1_000
"""Training questions of a task that the blind guesses are learned on."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task: its accuracy in 0..1, the number of questions, and what a blind guesser gets."""

    task: str
    accuracy: float
    questions: int
    levels: Levels
    mean_iou: float | None = None
    """Where boxes are asked for: the mean cover, besides the share that covers half."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A row for each task, and the file of all answers."""

    rows: tuple[Row, ...]
    path: Path


def check_tasks(names: Sequence[str]) -> None:
    """Raises ValueError on a name that is no task's, with the nearest that is."""
    for name in names:
        if name not in BENCHMARKS:
            raise ValueError(
                f"Unknown task {name!r}.{did_you_mean(name, BENCHMARKS)} There are: {', '.join(BENCHMARKS)}."
            )


def evaluate_run(command: Evaluate) -> Scored:
    """Ask the run every question of the named tasks, and save the answers in the run's folder.

    Raises:
        ValueError: no run, or an unknown task.
    """
    check_tasks(command.tasks)
    run = Run(command.run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = run.load_model(device, with_encoder=False)
    encoder = CachedEncoder(model.config.encoder, FeatureCache(default_folder()), device=device)
    every: list[Answer] = []
    rows: list[Row] = []
    for name in track(command.tasks or DEFAULT_TASKS, "Asking"):
        items = BENCHMARKS[name].items("test", command.num)
        answers = _ask(name, model, items, encoder, command)
        blind = levels(items, BENCHMARKS[name].items("train", REFERENCE))
        boxes = items[0].meta.get("metric") == "box"
        scores = grounding([one.prediction for one in answers], [one.answers for one in answers]) if boxes else None
        cover = None if scores is None else scores.mean_iou
        rows.append(Row(task=name, accuracy=accuracy(answers), questions=len(answers), levels=blind, mean_iou=cover))
        every += answers
    path = run.folder / "report" / f"answers-{command.control}.jsonl"
    write_answers(every, path)
    return Scored(rows=tuple(rows), path=path)


def _ask(
    name: str, model: VisionLanguageModel, items: Sequence[Sample], encoder: CachedEncoder, command: Evaluate
) -> list[Answer]:
    if BENCHMARKS[name].form == "retrieval":
        return retrieve(model, items, encoder=encoder, control=command.control)
    return evaluate(model, items, encoder=encoder, batch_size=command.batch_size, control=command.control)


def table(scored: Scored) -> Table:
    """Accuracies in percent, and beside them what can be had without looking."""
    made = Table("task")
    for heading in ("accuracy", "chance", "majority", "question only", "questions"):
        made.add_column(heading, justify="right")
    boxes = any(row.mean_iou is not None for row in scored.rows)
    if boxes:
        made.add_column("mean IoU", justify="right")
    for row in scored.rows:
        shares = (row.accuracy, row.levels.chance, row.levels.majority, row.levels.question_only)
        cover = "" if row.mean_iou is None else f"{100 * row.mean_iou:.1f}"
        made.add_row(row.task, *(f"{100 * share:.1f}" for share in shares), str(row.questions), *([cover] * boxes))
    return made
