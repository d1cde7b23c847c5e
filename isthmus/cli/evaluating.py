"""Evaluate one run from the command line: its tasks, answers, and accuracies beside what can be had without looking."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import track
from rich.table import Column, Table

from isthmus.cli.commands import Evaluate
from isthmus.config import did_you_mean
from isthmus.data.question_forms import put_as, refuse_dropped
from isthmus.data.sample import Sample
from isthmus.evaluate.benchmarks import BENCHMARKS, DEFAULT_TASKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.bounds import difference_bounds
from isthmus.evaluate.grounding import grounding
from isthmus.evaluate.levels import Levels, levels
from isthmus.evaluate.record import Answer, Control, accuracy, write_answers
from isthmus.evaluate.retrieval import retrieve
from isthmus.evaluate.runner import SHORT, evaluate
from isthmus.evaluate.sight import SeesImages, open_run
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
    seeing: tuple[float, float, float] | None = None
    """Accuracy less that of the same model over the mean image, and its 95% bounds, where that was asked too."""
    mean_iou: float | None = None
    """Where boxes are asked for: the mean cover, besides the share that covers half."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A row for each task, and the file of all answers."""

    rows: tuple[Row, ...]
    path: Path


def check_tasks(names: Sequence[str]) -> None:
    """Raises ValueError on a name that is no task's, with the nearest that is."""
    known = {**BENCHMARKS, **ALIGNMENT}
    for name in names:
        if name not in known:
            raise ValueError(f"Unknown task {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")


def check_counts(command: Evaluate) -> None:
    """Raises ValueError when nothing would be asked."""
    for option, value, least in (
        ("--num", command.num, 1),
        ("--batch-size", command.batch_size, 1),
        ("--judge", command.judge, 0),
    ):
        if value < least:
            raise ValueError(f"{option} {value} asks nothing: give {least} or more.")


def evaluate_run(command: Evaluate) -> Scored:
    """Ask the run every question of the named tasks, and save the answers in the run's folder.

    Raises:
        ValueError: no run, an unknown task, or a form of questions that the run's prompt does not take.
    """
    check_tasks(command.tasks)
    for name in command.tasks:
        if name not in BENCHMARKS:
            raise ValueError(f"{name!r} asks a model without a language model. There are: {', '.join(BENCHMARKS)}.")
    run = Run(command.run)
    if command.blind and command.control != "none":
        raise ValueError("--blind asks with the image and with the mean image: leave out --control.")
    prompt = put_as(run.model_config.prompt, command.prompt) if command.prompt else run.model_config.prompt
    names = command.tasks or DEFAULT_TASKS
    if any(BENCHMARKS[name].form == "answer" for name in names):
        described = [name for name in DEFAULT_TASKS if BENCHMARKS[name].form == "retrieval"]
        refuse_dropped(
            prompt, command.run, f"name tasks that describe in place of asking: --tasks {' '.join(described)}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, encoder = open_run(run, device, max_tiles=command.max_tiles)
    model.config = replace(model.config, prompt=prompt)
    every: list[Answer] = []
    answers_blind: list[Answer] = []
    rows: list[Row] = []
    for name in track(names, "Asking"):
        items = BENCHMARKS[name].items("test", command.num)
        answers = _ask(name, model, items, encoder, command, command.control)
        blind = levels(items, BENCHMARKS[name].items("train", REFERENCE))
        boxes = items[0].meta.get("metric") == "box"
        scores = grounding([one.prediction for one in answers], [one.answers for one in answers]) if boxes else None
        cover = None if scores is None else scores.mean_iou
        seeing = None
        if command.blind:
            unseen = _ask(name, model, items, encoder, command, "mean-image")
            seeing = _seeing(answers, unseen)
            answers_blind += unseen
        rows.append(
            Row(
                task=name,
                accuracy=accuracy(answers),
                questions=len(answers),
                levels=blind,
                mean_iou=cover,
                seeing=seeing,
            )
        )
        every += answers
    if command.blind and len(rows) > 1:
        rows.append(_together(rows, every, answers_blind))
    path = run.folder / "report" / f"answers-{command.control}.jsonl"
    write_answers(every, path)
    if answers_blind:
        write_answers(answers_blind, path.with_name("answers-mean-image.jsonl"))
    return Scored(rows=tuple(rows), path=path)


def _ask(
    name: str,
    model: VisionLanguageModel,
    items: Sequence[Sample],
    encoder: SeesImages,
    command: Evaluate,
    control: Control,
) -> list[Answer]:
    if BENCHMARKS[name].form == "retrieval":
        return retrieve(model, items, encoder=encoder, control=control)
    options = replace(SHORT, num_beams=command.num_beams, length_penalty=command.length_penalty)
    return evaluate(model, items, encoder=encoder, batch_size=command.batch_size, generation=options, control=control)


def _together(rows: Sequence[Row], answers: Sequence[Answer], unseen: Sequence[Answer]) -> Row:
    """All questions as one row; a question counts as much as any other, and those of one scene stand as one."""
    total = sum(row.questions for row in rows)

    def mean(values: Sequence[float]) -> float:
        return sum(value * row.questions for value, row in zip(values, rows, strict=True)) / total

    return Row(
        task="together",
        accuracy=accuracy(answers),
        questions=total,
        levels=Levels(
            chance=mean([row.levels.chance for row in rows]),
            majority=mean([row.levels.majority for row in rows]),
            question_only=mean([row.levels.question_only for row in rows]),
        ),
        seeing=_seeing(answers, unseen),
    )


def _seeing(answers: Sequence[Answer], unseen: Sequence[Answer]) -> tuple[float, float, float]:
    """What seeing adds, and its bounds; questions about one scene stand as one."""
    return difference_bounds(
        [one.score for one in answers], [one.score for one in unseen], [one.group for one in answers]
    )


def tables(scored: Scored) -> list[Table]:
    """Accuracies in percent beside what can be had without looking; and, where it was asked, what seeing adds."""
    boxes = any(row.mean_iou is not None for row in scored.rows)
    made = [_headed("accuracy", "chance", "majority", "question only", "asked", *["mean IoU"] * boxes)]
    for row in scored.rows:
        shares = (row.accuracy, row.levels.chance, row.levels.majority, row.levels.question_only)
        cover = "" if row.mean_iou is None else f"{100 * row.mean_iou:.1f}"
        made[0].add_row(row.task, *(f"{100 * share:.1f}" for share in shares), str(row.questions), *[cover] * boxes)
    asked_blind = [(row, row.seeing) for row in scored.rows if row.seeing is not None]
    if asked_blind:
        made.append(_headed("accuracy", "mean image", "seeing adds", "95% bounds"))
        for row, (gain, low, high) in asked_blind:
            made[1].add_row(
                row.task,
                f"{100 * row.accuracy:.1f}",
                f"{100 * (row.accuracy - gain):.1f}",
                f"{100 * gain:+.1f}",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
            )
    return made


def _headed(*headings: str) -> Table:
    made = Table(Column("task", no_wrap=True))
    for heading in headings:
        made.add_column(heading, justify="right")
    return made
