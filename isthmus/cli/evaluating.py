"""Evaluate one run from the command line: its tasks, answers and a table of accuracies."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from isthmus.cli.commands import Evaluate
from isthmus.config import did_you_mean
from isthmus.encoders import CachedEncoder
from isthmus.encoders.cache import FeatureCache, default_folder
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.record import accuracy, write_answers
from isthmus.evaluate.runner import evaluate
from isthmus.runs import Run


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Accuracy and number of questions by task, and the file of all answers."""

    accuracies: dict[str, tuple[float, int]]
    path: Path


def evaluate_run(command: Evaluate) -> Scored:
    """Ask the run every question of the named tasks, and save the answers in the run's folder.

    Raises:
        ValueError: an unknown task, or one that is not answered with text.
    """
    answering = [name for name, task in BENCHMARKS.items() if task.form == "answer"]
    for name in command.tasks:
        if name not in answering:
            raise ValueError(
                f"Unknown task {name!r}.{did_you_mean(name, answering)} There are: {', '.join(answering)}."
            )
    run = Run(command.run)
    model = run.load_model(with_encoder=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    encoder = CachedEncoder(model.config.encoder, FeatureCache(default_folder()), device=device)
    every, accuracies = [], {}
    for name in command.tasks or answering:
        items = BENCHMARKS[name].items("test", command.num)
        answers = evaluate(model, items, encoder=encoder, batch_size=command.batch_size, control=command.control)
        accuracies[name] = (accuracy(answers), len(answers))
        every += answers
    path = run.folder / "report" / f"answers-{command.control}.jsonl"
    write_answers(every, path)
    return Scored(accuracies=accuracies, path=path)


def table(scored: Scored) -> Table:
    """Accuracy of each task in percent."""
    made = Table("task", "accuracy", "questions")
    for name, (share, count) in scored.accuracies.items():
        made.add_row(name, f"{100 * share:.1f}", str(count))
    return made
