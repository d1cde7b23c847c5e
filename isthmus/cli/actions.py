"""One function a command: find what is named, call the library once, print what came."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rich.console import Console

from isthmus.cli import commands
from isthmus.cli.fields import with_fields
from isthmus.config import did_you_mean
from isthmus.recipes import CHAINS, RECIPES, STUDIES, Recipe, find

T = TypeVar("T")


def act(command: object, rest: Sequence[str]) -> None:
    """Run a parsed command. `rest` are the arguments that set fields of its recipe."""
    ACTIONS[type(command)](command, rest)


def train(command: commands.Train, rest: Sequence[str]) -> None:
    """Train a recipe's stage or a chain of them, or go on with a run."""
    from isthmus.train.processes import leave_group

    if command.recipe in CHAINS or (command.resume is not None and (command.resume / "chain.json").is_file()):
        _train_chain(command, rest)
    else:
        _train_stage(command, rest)
    leave_group()


def _train_stage(command: commands.Train, rest: Sequence[str]) -> None:
    from isthmus.cli.stages import how_to_ask, run_options, saved_stage
    from isthmus.runs import new_run_folder
    from isthmus.train.loop import train as run_training

    if command.resume is not None:
        _check_resume(command, rest)
        folder, stage = command.resume, saved_stage(command.resume)
    else:
        if command.recipe is None:
            raise ValueError(f"Name a recipe, or a run to --resume. Recipes: {', '.join((*CHAINS, *RECIPES))}.")
        known: dict[str, Recipe[Any]] = {**CHAINS, **RECIPES}
        find(command.recipe, known, "recipe")
        stage = _resolved(RECIPES, "recipe", command.recipe, rest, f"train {command.recipe}")
        _check_out(command)
        folder = command.out or new_run_folder(stage.name)
    options = run_options(command)
    run = run_training(stage, folder, resume=command.resume is not None, start=command.start, options=options)
    if os.environ.get("RANK", "0") == "0":
        validation = run.result.get("validation_loss")
        said = "" if validation is None else f", validation loss {validation:.4f}"
        print(f"Finished {run.name}: {run.result['steps']} steps{said}. Run folder: {folder}")
        if options.tensorboard:
            print(f"Curves: tensorboard --logdir {folder}")
        words = [line["doctor"] for line in run.log() if "doctor" in line]
        if words and words[-1] not in ("healthy", "early"):
            print(f"The doctor found: {words[-1]}. What to do: isthmus doctor {folder}")
        if stage.model.llm is None:
            print(f"Search with it: isthmus evaluate {folder}")
        else:
            print(how_to_ask(stage, folder))


def _train_chain(command: commands.Train, rest: Sequence[str]) -> None:
    from isthmus.cli.chaining import train_command

    chain = None
    if command.resume is not None:
        _check_resume(command, rest)
    else:
        assert command.recipe is not None
        chain = _resolved(CHAINS, "recipe", command.recipe, rest, f"train {command.recipe}")
        _check_out(command)
    for one in train_command(chain, command):
        Console().print(one, soft_wrap=isinstance(one, str), markup=False, highlight=False)


def _check_resume(command: commands.Train, rest: Sequence[str]) -> None:
    if command.recipe is not None or rest or command.out is not None:
        came = f", {rest[0]!r} came.{did_you_mean(rest[0], commands.own_options('train'))}" if rest else "."
        raise ValueError(f"--resume FOLDER goes on with the stage in that folder: give no recipe, field or --out{came}")


def _check_out(command: commands.Train) -> None:
    if command.out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("Several processes train into one folder, so name it: --out FOLDER.")


def evaluate(command: commands.Evaluate, rest: Sequence[str]) -> None:
    """Ask a run the questions of its tasks, and print the accuracy of each; of a chain's folder, every run."""
    from isthmus.cli.chaining import evaluate_command, is_chain
    from isthmus.cli.evaluating import check_counts, check_tasks, evaluate_run, tables
    from isthmus.runs import Run

    check_counts(command)
    check_tasks(command.tasks)
    if is_chain(command.run):
        for one in evaluate_command(command):
            Console().print(one, soft_wrap=isinstance(one, str), markup=False, highlight=False)
        return
    if Run(command.run).model_config.llm is None:
        from isthmus.cli import retrieving

        found = retrieving.retrieve_run(command)
        for made in retrieving.tables(found):
            Console().print(made)
        print(f"Recalls: {found.path}")
        return
    scored = evaluate_run(command)
    for made in tables(scored):
        Console().print(made)
    print(f"Every prompt, answer and score: {scored.path}")


def ask(command: commands.Ask, rest: Sequence[str]) -> None:
    """Print the answer to one question about one picture, video or sound."""
    from isthmus.cli.asking import ask_command

    for line in ask_command(command):
        print(line)


def chat(command: commands.Chat, rest: Sequence[str]) -> None:
    """Talk with a trained run until the end of input."""
    from isthmus.cli.chatting import talk

    talk(command)


def compare(command: commands.Compare, rest: Sequence[str]) -> None:
    """Run a study and print its table and where the report is."""
    from isthmus.compare.run import REPORT_FILE, run_study
    from isthmus.runs import runs_root

    study = find(command.study, STUDIES, "study")()
    if command.connectors:
        from isthmus.recipes.shelf import with_connectors

        study = with_connectors(study, [name for part in command.connectors for name in part.split(",") if name])
    study = with_fields(study, rest, command=f"compare {command.study}")
    folder = command.out or runs_root() / "studies" / study.name
    print(f"Study {study.name}: its trainings are kept in {folder}, and none is repeated.")
    run_study(study, folder, workers=command.workers)
    print(f"Report: {folder / REPORT_FILE}")


def doctor(command: commands.Doctor, rest: Sequence[str]) -> None:
    """Print a run's signs and what is wrong with it; of a chain's folder, every run that has begun."""
    from isthmus.cli.doctoring import diagnose, runs_in, sentences, table

    for run in runs_in(command.run):
        found = diagnose(replace(command, run=run))
        if run != command.run:
            print(f"{run}:")
        Console().print(table(found))
        for sentence in sentences(found.verdict):
            print(sentence)
        print(f"Verdict: {found.path}")


def atlas(command: commands.Atlas, rest: Sequence[str]) -> None:
    """Draw where the visual tokens of a picture were read, and say how widely they look."""
    from isthmus.cli.mapping import atlas_command

    for line in atlas_command(command):
        print(line)


def curate(command: commands.Curate, rest: Sequence[str]) -> None:
    """Caption, rank, keep; print what was kept and where the report is."""
    from isthmus.cli.curating import curate_command

    for line in curate_command(command):
        print(line)


def cost(command: commands.Cost, rest: Sequence[str]) -> None:
    """Print what a model costs."""
    from isthmus.cli.cost_tables import cost_console
    from isthmus.cli.costing import cost_lines

    console, wanted = cost_console(), [command]
    if command.recipe in CHAINS:
        from isthmus.cli.chaining import refuse_fields

        chain = CHAINS[command.recipe]()
        refuse_fields(command.recipe, rest, chain)
        wanted = [replace(command, recipe=stage.name) for stage in chain.stages]
    for each in wanted:
        for one in cost_lines(each, rest):
            console.print(one, markup=not isinstance(one, str), highlight=False)


def check(command: commands.Check, rest: Sequence[str]) -> None:
    """Print samples of every source of a recipe with supervised tokens marked."""
    from isthmus.cli.stages import checked_samples

    said = f"check {command.recipe}"
    if command.recipe in CHAINS:
        chain = _resolved(CHAINS, "recipe", command.recipe, rest, said)
        chain.check()
        stages = chain.stages
    else:
        stages = (_resolved(RECIPES, "recipe", command.recipe, rest, said),)
    console = Console()
    for stage in stages:
        for title, lines in checked_samples(stage, num=command.num, scan=command.scan):
            console.rule(f"{stage.name}, {title}" if len(stages) > 1 else title)
            for line in lines:
                console.print(line)


def import_run(command: commands.Import, rest: Sequence[str]) -> None:
    """Make a run of a checkpoint, and print what was taken and what was left."""
    from isthmus.exchange import import_native, import_official

    if command.recipe is None:
        if rest:
            near = did_you_mean(rest[0], commands.own_options("import"))
            raise ValueError(f"{rest[0]!r} sets a field of a recipe, but none is named: give --recipe.{near}")
        done = import_native(command.path, command.to)
    else:
        stage = _resolved(RECIPES, "recipe", command.recipe, rest, f"import {command.path} --recipe {command.recipe}")
        done = import_official(command.path, command.to, stage.model)
    for line in done.lines():
        print(line)
    print(f"Run folder: {command.to}")


def export_run(command: commands.Export, rest: Sequence[str]) -> None:
    """Write a run as a native folder, and print how far the two differ."""
    from isthmus.cli.exporting import export_command

    for line in export_command(command):
        print(line)


def list_names(command: commands.List, rest: Sequence[str]) -> None:
    """Print every name there is."""
    from isthmus.cli.tables import names

    Console().print(names())


def show(command: commands.Show, rest: Sequence[str]) -> None:
    """Print a recipe's values with their sources, or its JSON."""
    from isthmus.cli.tables import provenance_table
    from isthmus.config import to_json

    table: dict[str, Recipe[Any]] = {**STUDIES, **RECIPES, **CHAINS}
    stage = _resolved(table, "recipe", command.recipe, rest, f"show {command.recipe}")
    if command.json:
        Console().print_json(data=to_json(stage))
    elif command.recipe in CHAINS:
        from isthmus.cli.chaining import chain_table

        Console().print(chain_table(stage))
        for number, one in enumerate(stage.stages):
            made = RECIPES[one.name]
            Console().print(provenance_table(one, made.make.__doc__ or "", CHAINS[command.recipe]().stages[number]))
    else:
        recipe = table[command.recipe]
        Console().print(provenance_table(stage, recipe.make.__doc__ or "", recipe()))


def _resolved(table: dict[str, Recipe[T]], kind: str, name: str, rest: Sequence[str], command: str) -> T:
    """The named stage or study with the fields that were set."""
    return with_fields(find(name, table, kind)(), rest, command=command)


ACTIONS: dict[type, Callable[[Any, Sequence[str]], None]] = {
    commands.Train: train,
    commands.Compare: compare,
    commands.Evaluate: evaluate,
    commands.Ask: ask,
    commands.Chat: chat,
    commands.Doctor: doctor,
    commands.Atlas: atlas,
    commands.Curate: curate,
    commands.Cost: cost,
    commands.Check: check,
    commands.Import: import_run,
    commands.Export: export_run,
    commands.List: list_names,
    commands.Show: show,
}
