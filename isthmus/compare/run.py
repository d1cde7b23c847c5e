"""Run a study: its jobs on all cores, its results in its folder, its table in the terminal and its report as a page."""

import json
import os
import platform
import shlex
import sys
from pathlib import Path

import torch
from rich.console import Console

from isthmus import __version__
from isthmus.compare.asking import items_of
from isthmus.compare.breakdown import breakdowns_to_json
from isthmus.compare.costs import CAPTION_TOKENS, TRAINING_TEXT_TOKENS, arm_cost, inputs_of_item, training_work
from isthmus.compare.examples import broken_down, pick_examples
from isthmus.compare.jobs import DONE, Job, features_jobs
from isthmus.compare.judge import judge
from isthmus.compare.plan import StudyPlan
from isthmus.compare.pool import Pool, Work
from isthmus.compare.progress import StudyProgress
from isthmus.compare.report import write_report
from isthmus.compare.results import Results, TaskInfo, write_jobs, write_whole
from isthmus.compare.schedule import Board, run_jobs
from isthmus.compare.study import TASKS, TEXT_ONLY, Study
from isthmus.compare.table import print_table, short_count
from isthmus.compare.verdict import Verdict
from isthmus.compare.work import LEVELS_FILE, work
from isthmus.config import to_json
from isthmus.evaluate.levels import Levels

STUDY_FILE = "study.json"
RESULTS_FILE = "results.jsonl"
REPORT_FILE = "report.html"
BREAKDOWNS_FILE = "breakdowns.json"
LOG_FILE = "workers.log"


def run_study(
    study: Study,
    folder: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    command: str = "",
    do: Work = work,
) -> tuple[Results, Verdict]:
    """Run what the folder does not hold yet, print the table, write `results.jsonl` and `report.html`.

    `workers` single-threaded processes work side by side, as many as cores unless given. A study that was stopped goes
    on where it was; a finished one only writes its report anew. `command` is shown in the report.

    Raises:
        ValueError: no worker, or no arm could be judged.
    """
    count = num_cores() if workers is None else workers
    if count < 1:
        raise ValueError(f"workers={count} trains nothing: give 1 or more, or leave it out for one a core.")
    folder.mkdir(parents=True, exist_ok=True)
    config = {"isthmus": __version__, "study": to_json(study)}
    write_whole(folder / STUDY_FILE, json.dumps(config, indent=1, ensure_ascii=False))
    board, plan = Board(), StudyPlan(study, folder, workers=count)

    with (
        Pool(count, do, folder / LOG_FILE) as pool,
        StudyProgress(show=progress, workers=count, to_come=plan.work_to_come) as shown,
    ):

        def show(board: Board, line: str) -> None:
            if line:
                write_jobs(list(board.done.values()), folder / RESULTS_FILE)
            shown(board, line)

        run_jobs(pool, board, plan, show)
    if not any(job.kind == "features" for job in plan.first):
        earlier = [job for job in features_jobs(folder, study, count) if (job.folder / DONE).is_file()]
        board.done.update((job, job.result()) for job in earlier)
    write_jobs(list(board.done.values()), folder / RESULTS_FILE)
    results = collect(study, plan, board, command)
    verdict = judge(results)
    if results.breakdowns:
        write_whole(folder / BREAKDOWNS_FILE, breakdowns_to_json(results.breakdowns))
    examples = pick_examples(results, [job for job in board.done if job.kind == "final"], study)
    write_report(folder / REPORT_FILE, results, verdict, examples=examples, config=config)
    if progress:
        print_table(results, verdict, Console())
    return results, verdict


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def collect(study: Study, plan: StudyPlan, board: Board, command: str) -> Results:
    """The board's results with the costs of every arm, over the first item's inputs, and the levels of every task."""
    task = study.headline[0]
    asked = inputs_of_item(items_of(task, study.items_of(task))[0])
    return Results(
        name=study.name,
        headline=study.headline,
        margin=study.margin,
        arms=tuple(arm.name for arm in study.every_arm()),
        blind_arm=TEXT_ONLY if study.text_only is not None else None,
        tasks=_tasks(study, plan.first, plan.failures(board)),
        costs={arm: arm_cost(stage, asked) for arm, stage in plan.stages.items()},
        jobs=tuple(board.done.values()),
        factors=study.by_level(),
        judge=study.judge,
        breakdowns=broken_down([job for job in board.done if job.kind == "final"], study),
        failures=tuple(plan.failures(board)),
        facts={**_facts(command), "training": _training(study)},
    )


def _training(study: Study) -> str:
    """Steps and FLOPs of every arm's judged runs, with the stages before them."""
    said = []
    for arm, stage in study.stages().items():
        stages = (*study.before(arm, seed=study.seeds[0]), stage)
        steps = " + ".join(f"{one.steps:,}" for one in stages)
        said.append(f"{arm}: {steps} steps, {short_count(sum(training_work(one) for one in stages))}FLOPs")
    return f"{'; '.join(said)} (with texts of {TRAINING_TEXT_TOKENS} tokens, captions of {CAPTION_TOKENS})"


def _tasks(study: Study, jobs: list[Job], failures: list[str]) -> tuple[TaskInfo, ...]:
    path = next(job.folder for job in jobs if job.kind == "levels") / LEVELS_FILE
    if not path.is_file():
        raise ValueError(
            f"The levels without looking could not be computed, so nothing can be judged: {' '.join(failures)}"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        TaskInfo(
            name=name,
            title=TASKS[name].title,
            kind=TASKS[name].kind,
            count=int(found[name].pop("count")),
            levels=Levels(**found[name]),
        )
        for name in study.tasks
    )


def _facts(command: str) -> dict[str, str]:
    facts = {
        "isthmus": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {num_cores()} cores, {_processor()}",
    }
    return {"command": command or shlex.join(["isthmus", *sys.argv[1:]]), **facts}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "processor unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "processor unknown")
