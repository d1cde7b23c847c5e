"""The jobs of a study: what each is, where it keeps its files, and in which order they may run.

A job's name holds a hash of everything that decides its result, so a changed study finds no stale result, and a result
that is there is never made again.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isthmus.compare.costs import training_work
from isthmus.compare.results import JobResult, job_from_json, job_to_json, write_whole
from isthmus.compare.study import TEXT_ONLY, Study
from isthmus.config import to_json
from isthmus.train.stage import Stage

DONE = "done.json"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a judged run is asked."""

    tasks: tuple[tuple[str, int], ...]
    """Every task and how many of its items, where it has as many."""
    headline: tuple[str, ...]
    control_items: int
    watch_items: int
    blind: bool
    """The text-only arm: asked over a blank picture alone."""


@dataclass(frozen=True, kw_only=True)
class AskedToAlign(Asked):
    """What a judged run without a language model is asked."""

    judge: int
    """How many of a query's best answers are judged again; 0 lets comparison alone decide."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One thing for a worker to do.

    "features" encodes one share of the pictures that stages with one encoder read; "levels" computes what can be had
    without looking; "before" trains the stages that an arm's runs of one seed start from; "tune" trains a short run;
    "final" trains a judged run and asks it.
    """

    kind: Literal["features", "levels", "before", "tune", "final"]
    folder: Path
    work: float
    """A rough size in FLOPs: for the order of jobs and the time left."""
    path: float
    """The work of this job and of those that wait for it: the longest path begins first."""
    name: str
    arm: str = ""
    seed: int = 0
    rate: float = 0.0
    stages: tuple[Stage, ...] = ()
    asked: Asked | None = None
    share: tuple[int, int] = (0, 1)
    """This job's part of several: (number, of how many)."""
    before: "Job | None" = None
    """The job whose last run this one's stage starts from."""

    @property
    def stage(self) -> Stage:
        """The stage of a tune or final job."""
        assert len(self.stages) == 1
        return self.stages[0]

    @property
    def runs(self) -> tuple[Path, ...]:
        """The run folders of a "before" job's stages, or the one of a tune or final job."""
        if self.kind != "before":
            return (self.folder / "run",)
        return tuple(self.folder / f"run-{number}" for number in range(1, len(self.stages) + 1))

    @property
    def start(self) -> Path | None:
        """The run folder that this job's stage starts from, where it does."""
        return None if self.before is None else self.before.runs[-1]

    @property
    def done(self) -> bool:
        """Whether its result is there. Encoding is always looked through again: the cache may have been emptied."""
        return self.kind != "features" and (self.folder / DONE).is_file()

    def finish(self, result: JobResult) -> None:
        """Write the result: the job is done from here on."""
        write_whole(self.folder / DONE, json.dumps(job_to_json(result), indent=1))

    def result(self) -> JobResult:
        """Read the result. Raises ValueError when the file is no result."""
        return job_from_json(json.loads((self.folder / DONE).read_text(encoding="utf-8")))


def asked_of(study: Study, arm: str) -> Asked:
    """What an arm's judged runs are asked."""
    asked = Asked(
        tasks=tuple((task, study.items_of(task)) for task in study.tasks),
        headline=study.headline,
        control_items=study.control_items,
        watch_items=study.watch_items,
        blind=arm == TEXT_ONLY,
    )
    if study.judge is None:
        return asked
    return AskedToAlign(**{**vars(asked), "control_items": 0}, judge=study.judge)


def features_jobs(root: Path, study: Study, workers: int) -> list[Job]:
    """For every different frozen encoder, the encoding of all pictures, cut into as many jobs as there are workers.

    They are never reused: what the cache holds already is found quickly.
    """
    groups: dict[str, list[Stage]] = {}
    for arm in study.stages():
        seeds = [(seed, 1.0) for seed in study.seeds] + [(seed, study.tune_fraction) for seed in study.tune_seeds]
        read = [study.at(arm, rate=study.rates_of(arm)[0], seed=seed, fraction=part) for seed, part in seeds]
        read += [earlier for seed, _ in seeds for earlier in study.before(arm, seed=seed)]
        for stage in read:
            if not stage.learns("encoder") and stage.cached_views == 1:
                groups.setdefault(stage.model.encoder.fingerprint(), []).append(stage)
    asked = asked_of(study, "")
    return [
        Job(
            kind="features",
            folder=root / "jobs" / "features" / f"{fingerprint}-{number}-of-{workers}",
            work=0.0,
            path=math.inf,
            name=f"pictures, part {number + 1} of {workers}",
            stages=tuple(stages),
            asked=asked,
            share=(number, workers),
        )
        for fingerprint, stages in groups.items()
        for number in range(workers)
    ]


def levels_job(root: Path, study: Study) -> Job:
    """What can be had on every task without looking."""
    asked = asked_of(study, "")
    decides = {"tasks": to_json(asked.tasks)}
    return Job(
        kind="levels",
        folder=job_folder(root, "levels", "tasks", (), decides),
        work=0.0,
        path=1e300,
        name="levels without looking",
        asked=asked,
    )


def job_folder(root: Path, kind: str, arm: str, parts: Sequence[str], decides: object) -> Path:
    """`jobs/final/mlp/seed-1-3f2a...`: readable, and different whenever anything in `decides` is."""
    digest = hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=5).hexdigest()
    return root / "jobs" / kind / plain_name(arm) / "-".join((*parts, digest))


def plain_name(name: str) -> str:
    """A name as part of a path: letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "arm"


def before_job(root: Path, study: Study, arm: str, seed: int, work: float) -> Job | None:
    """The stages before an arm's own, the same job for all arms that have the same ones; None without any."""
    stages = study.before(arm, seed=seed)
    if not stages:
        return None
    decides = {"stages": to_json(stages), "models": [stage.model.fingerprint() for stage in stages]}
    return Job(
        kind="before",
        folder=job_folder(root, "before", stages[-1].name, (f"seed-{seed}",), decides),
        work=sum(training_work(stage) for stage in stages),
        path=2.0 * work + sum(training_work(stage) for stage in stages),
        name=f"{stages[-1].name}: seed {seed}",
        arm=arm,
        seed=seed,
        stages=stages,
    )


def tune_job(
    root: Path, study: Study, arm: str, rate: float, seed: int, fingerprint: str, work: float, before: Job | None = None
) -> Job:
    """A short run at one rate."""
    stage = study.at(arm, rate=rate, seed=seed, fraction=study.tune_fraction)
    decides = {"stage": to_json(stage), "model": fingerprint, "arm": arm, **_start_of(before)}
    return Job(
        kind="tune",
        folder=job_folder(root, "tune", arm, (f"rate-{rate:g}", f"seed-{seed}"), decides),
        work=work * study.tune_fraction,
        path=work * (1.0 + study.tune_fraction),
        name=f"{arm}: rate {rate:g}",
        arm=arm,
        seed=seed,
        rate=rate,
        stages=(stage,),
        before=before,
    )


def final_job(
    root: Path, study: Study, arm: str, rate: float, seed: int, fingerprint: str, work: float, before: Job | None = None
) -> Job:
    """A judged run at the chosen rate."""
    stage = study.at(arm, rate=rate, seed=seed)
    asked = asked_of(study, arm)
    decides = {
        "stage": to_json(stage), "model": fingerprint, "arm": arm, "asked": to_json(asked), **_start_of(before)
    }  # fmt: skip
    return Job(
        kind="final",
        folder=job_folder(root, "final", arm, (f"seed-{seed}",), decides),
        work=work,
        path=work,
        name=f"{arm}: seed {seed}",
        arm=arm,
        seed=seed,
        rate=rate,
        stages=(stage,),
        asked=asked,
        before=before,
    )


def _start_of(before: Job | None) -> dict[str, str]:
    """What of an earlier job decides a later one's result: its folder's name, which holds the hash of its own."""
    return {} if before is None else {"before": before.folder.name}


def chosen_rate(tried: Sequence[JobResult]) -> float | None:
    """The rate whose tuning runs had the lowest mean validation loss; the lower rate of equals; None without any.

    A rate at which visual tokens became alike is passed over while there is another: a run that sees nothing may learn
    the habits of the answers, and so its loss, the sooner for it.
    """
    alike = {job.rate for job in tried if job.alike}
    losses: dict[float, list[float]] = {}
    for job in tried:
        if job.rate not in alike or len(alike) == len({one.rate for one in tried}):
            losses.setdefault(job.rate, []).append(job.validation_loss)
    means = {rate: sum(found) / len(found) for rate, found in losses.items()}
    return min(means, key=lambda rate: (means[rate], rate)) if means else None
