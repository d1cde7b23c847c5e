"""What a study's folder holds once jobs are done, as values: read from JSON, judged and reported from here."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from isthmus.compare.breakdown import Breakdown
from isthmus.evaluate.levels import Levels

Kind = Literal["features", "levels", "before", "tune", "final"]


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What an arm costs for the inputs of a question, from its config alone, except the measured time in `JobResult`.

    Without a language model: for one picture and its caption, read for every objective.
    """

    connector_parameters: int
    trained_parameters: int
    visual_tokens: int
    connector_flops: int
    encoder_flops: int
    prefill_flops: int | None = None
    """The language model reading the visual tokens and a question of `QUESTION_TOKENS`; None without one."""
    kv_bytes: int | None = None

    @property
    def flops(self) -> int:
        """Connector and prefill together: what the choice of connector alters (the encoder is the same)."""
        return self.connector_flops + (self.prefill_flops or 0)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """One finished job: a training run and, for a final one, its evaluation. Accuracies are in 0..1."""

    job: str
    kind: Kind
    arm: str = ""
    seed: int = 0
    rate: float = 0.0
    steps: int = 0
    validation_loss: float = 0.0
    train_core_seconds: float = 0.0
    before_core_seconds: float = 0.0
    """Of the stages that this run started from: a job of their own, which several runs may share."""
    evaluate_core_seconds: float = 0.0
    train_curve: tuple[tuple[int, float], ...] = ()
    validation_curve: tuple[tuple[int, float], ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Accuracy by control ("none", "mean-image", "shuffled", "text-only") and task; without a language model "none" is
    the score, "compared" what comparison alone gives."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Questions behind each of `scores`."""
    watched: tuple[float, float] | None = None
    """Headline accuracy on the watched items before and after the last fifth of training."""
    alike: bool = False
    """Of a tuning run: all visual tokens of an image were alike at its end."""
    first_token_ms: float | None = None
    prepare_core_seconds: float = 0.0
    """Of encoding pictures and computing levels."""
    encoder_calls: int = 0
    """Pictures that were encoded because the cache did not hold them."""


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What the report says of a task."""

    name: str
    title: str
    kind: str
    count: int
    levels: Levels


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole study: enough to judge it and to draw every figure."""

    name: str
    headline: tuple[str, ...]
    margin: float
    arms: tuple[str, ...]
    """In the study's order, without the text-only arm."""
    blind_arm: str | None
    tasks: tuple[TaskInfo, ...]
    costs: Mapping[str, ArmCost]
    jobs: tuple[JobResult, ...]
    factors: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """For a factorial: factor -> level -> the arms that have it."""
    judge: int | None = None
    """None where arms answer with text; else how many of a query's best answers were judged again (see `Study`)."""
    breakdowns: tuple[Breakdown, ...] = ()
    """Tasks in parts, where a task says by what (see `Task.by`)."""
    failures: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """Where and how it ran: machine, versions, command."""

    @property
    def aligned(self) -> bool:
        """Whether the arms have no language model and were asked which texts and images belong together."""
        return self.judge is not None

    def finals(self, arm: str) -> dict[int, JobResult]:
        """An arm's judged runs by seed."""
        return {job.seed: job for job in self.jobs if job.kind == "final" and job.arm == arm}

    def task(self, name: str) -> TaskInfo:
        """A task by name."""
        return next(task for task in self.tasks if task.name == name)

    def accuracy(self, arm: str, tasks: Sequence[str], control: str = "none") -> dict[int, float]:
        """Mean accuracy over `tasks` by seed; seeds without this control on all of them are left out."""
        found = {}
        for seed, job in self.finals(arm).items():
            scores = job.scores.get(control, {})
            if tasks and all(task in scores for task in tasks):
                found[seed] = sum(scores[task] for task in tasks) / len(tasks)
        return found

    def resolution(self, tasks: Sequence[str]) -> float:
        """What one question more is worth in the mean accuracy over `tasks`."""
        return max(1.0 / self.task(task).count for task in tasks) / len(tasks)

    def rate(self, arm: str) -> float | None:
        """The learning rate an arm's final runs used."""
        rates = [job.rate for job in self.finals(arm).values()]
        return rates[0] if rates else None

    def alike(self, arm: str) -> bool:
        """Whether the arm's visual tokens became alike in the tuning runs of every rate."""
        tried = [job for job in self.jobs if job.kind == "tune" and job.arm == arm]
        return bool(tried) and {job.rate for job in tried} == {job.rate for job in tried if job.alike}

    @property
    def core_seconds(self) -> float:
        """Of every job together."""
        return sum(job.train_core_seconds + job.evaluate_core_seconds + job.prepare_core_seconds for job in self.jobs)


def job_from_json(data: dict[str, Any]) -> JobResult:
    """A job's `done.json`. Raises ValueError when it is not one."""
    try:
        values = dict(data)
        for name in ("train_curve", "validation_curve"):
            values[name] = tuple((int(step), float(loss)) for step, loss in values.get(name, ()))
        if values.get("watched") is not None:
            values["watched"] = tuple(values["watched"])
        return JobResult(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Not a job's result: {error}") from error


def job_to_json(job: JobResult) -> dict[str, Any]:
    """The JSON object that `job_from_json` reads."""
    return asdict(job)


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_jobs(jobs: Sequence[JobResult], path: Path) -> None:
    """`results.jsonl`: one finished job a line."""
    write_whole(path, "".join(json.dumps(job_to_json(job)) + "\n" for job in jobs))


def read_jobs(path: Path) -> list[JobResult]:
    """Read `results.jsonl`."""
    return [job_from_json(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
