"""Chains from the command line: train every stage, then ask the finished runs what the chain says, in one statement."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from isthmus.cli import retrieving
from isthmus.cli.commands import Evaluate, Train
from isthmus.cli.evaluating import check_tasks, evaluate_run, tables
from isthmus.cli.stages import how_to_ask, run_options
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.runs import Run, new_run_folder
from isthmus.train.chain import CHAIN_FILE, Chain, read_chain, train_chain
from isthmus.train.stage import Stage

JUDGED = 32
"""Of each search of a gallery, judged again at a chain's end: fewer than alone, for it waits there."""


def is_chain(folder: Path) -> bool:
    """Whether a folder is a chain's."""
    return (folder / CHAIN_FILE).is_file()


def train_command(chain: Chain | None, command: Train) -> Iterator[RenderableType]:
    """Train a chain into a new folder, or go on with the one in `command.resume`; what to print, as it comes.

    Raises:
        ValueError: an unknown task is asked, the folder holds something else, or what training raises.
    """
    if chain is None:
        assert command.resume is not None
        chain, folder = read_chain(command.resume), command.resume
    else:
        folder = command.out or new_run_folder(chain.name)
    check_tasks(chain.asked)
    main = os.environ.get("RANK", "0") == "0"
    began = time.perf_counter()
    names = ", then ".join(stage.name for stage in chain.stages)
    if main:
        yield f"Chain {chain.name}: {names}. Folder: {folder}"
    resume, options = command.resume is not None, run_options(command)
    train_chain(chain, folder, resume=resume, start=command.start, options=options, main=main)
    if not main:
        return
    trained = time.perf_counter() - began
    for stage, place in zip(chain.stages, chain.folders(folder), strict=True):
        yield _finished(stage, Run(place))
    yield from statement(chain, folder)
    whole = time.perf_counter() - began
    yield f"{trained / 60:.1f} minutes of training here, {whole / 60:.1f} with what was asked."
    yield f"The same figures again: isthmus evaluate {folder}"
    last = chain.folders(folder)[-1]
    if chain.stages[-1].model.llm is not None:
        yield how_to_ask(chain.stages[-1], last)


def statement(chain: Chain, folder: Path) -> Iterator[RenderableType]:
    """The figures of every run of a chain, each asked the tasks that it can answer.

    Raises:
        ValueError: a stage is not finished.
    """
    for stage, place in zip(chain.stages, chain.folders(folder), strict=True):
        known = ALIGNMENT if stage.model.llm is None else BENCHMARKS
        tasks = tuple(name for name in chain.asked if name in known)
        if not tasks:
            continue
        if not place.is_dir() or not Run(place).finished:
            raise ValueError(f"{stage.name!r} is not finished in {folder}. Go on: isthmus train --resume {folder}")
        yield f"{stage.name}:"
        if stage.model.llm is None:
            found = retrieving.retrieve_run(Evaluate(run=place, tasks=tasks, num=chain.items_per_task, judge=JUDGED))
            yield from retrieving.tables(found)
            yield f"Recalls and shares: {found.path}"
        else:
            scored = evaluate_run(Evaluate(run=place, tasks=tasks, num=chain.items_per_task, blind=True))
            yield from tables(scored)
            yield f"Every prompt, answer and score: {scored.path}"


def evaluate_command(command: Evaluate) -> Iterator[RenderableType]:
    """The statement of a chain's folder.

    Raises:
        ValueError: tasks, a control or a way to ask were named, which are a single run's.
    """
    if command.tasks or command.control != "none" or command.blind or command.prompt or command.num_beams > 1:
        raise ValueError(
            f"{command.run} holds a chain, which says itself what its runs are asked. For other tasks or controls "
            f"name one of its runs: {', '.join(map(str, read_chain(command.run).folders(command.run)))}."
        )
    yield from statement(read_chain(command.run), command.run)


def chain_table(chain: Chain) -> Table:
    """One row a stage: where it starts, what learns, by what, from what, how long."""
    made = Table(title=f"{chain.name}: {len(chain.stages)} stages")
    for heading in ("", "stage", "starts from", "learns", "objectives", "data", "steps x batch"):
        made.add_column(heading)
    for number, stage in enumerate(chain.stages):
        made.add_row(
            f"stages.{number}",
            stage.name,
            stage.start_from or "nothing",
            ", ".join(stage.train),
            ", ".join(type(one).__name__ for one in stage.objectives),
            ", ".join(type(source.of).__name__ for source in stage.data),
            f"{stage.steps or f'{stage.epochs} epochs'} x {stage.batch_size}",
        )
    return made


def refuse_fields(name: str, rest: Sequence[str], chain: Chain) -> None:
    """Raises ValueError when fields are set where a chain stands for each of its stages."""
    if rest:
        stages = ", ".join(stage.name for stage in chain.stages)
        raise ValueError(f"{name!r} is a chain: set {rest[0]!r} on one of its stages, by naming it: {stages}.")


def _finished(stage: Stage, run: Run) -> str:
    loss = run.result.get("validation_loss")
    said = "" if loss is None else f", validation loss {loss:.4f}"
    words = [line["doctor"] for line in run.log() if "doctor" in line]
    sick = f" The doctor found: {words[-1]}." if words and words[-1] not in ("healthy", "early") else ""
    return f"Finished {stage.name}: {run.result['steps']} steps{said}. Run folder: {run.folder}.{sick}"
