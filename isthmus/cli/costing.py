"""Costs for the terminal: of a recipe, a run, a model folder or a hub id; of the whole shelf; and what fits."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from isthmus.cli.commands import Cost as CostCommand
from isthmus.cli.cost_tables import CountTable, counts, facts_table, memory_rows, parts_table
from isthmus.cli.costing_alignment import alignment_tables, caption_length
from isthmus.cli.fields import with_fields
from isthmus.cli.stages import saved_stage
from isthmus.cli.tables import gib, short
from isthmus.config import did_you_mean
from isthmus.data.sources import Source, WorldCaptions
from isthmus.measure import (
    ONE_IMAGE,
    SYMBOLS,
    BranchCost,
    Cost,
    Inputs,
    PartCost,
    TrainingMemory,
    cost,
    fits,
    formulas,
    native_model,
    read_bytes,
    shelf,
    training_memory,
)
from isthmus.model import Model
from isthmus.recipes import RECIPES
from isthmus.runs import STAGE_FILE, Run
from isthmus.train.stage import AdamW, Stage

SHELF_RECIPE = "llava15/stage1"
"""Whose encoder and language model stand at the ends of the shelf when nothing is named."""
_LARGEST_SIDE = 100_000


def cost_lines(command: CostCommand, rest: Sequence[str]) -> Iterator[Table | CountTable | str]:
    """Everything that `isthmus cost` prints.

    Raises:
        ValueError: nothing is named, the name is unknown, a size cannot be read, or the parts do not fit.
    """
    name = command.recipe or (SHELF_RECIPE if command.shelf else None)
    if name is None:
        raise ValueError(f"Name a recipe, a run folder, a model folder or a hub id. Recipes: {', '.join(RECIPES)}.")
    if command.text_tokens < 0:
        raise ValueError(f"--text-tokens {command.text_tokens} is the length of a text in tokens: give 0 or more.")
    stage = with_fields(find_stage(name), rest, command=f"cost {name}")
    sizes: list[tuple[int, int] | None] = [read_size(text) for text in command.image] or [None]
    inputs = Inputs(images=command.images, frames=command.frames, sounds=command.sounds)
    alone = stage.model.llm is None
    if alone and (command.shelf or len(sizes) > 1 or inputs != ONE_IMAGE):
        raise ValueError(
            f"Stage {stage.name!r} has no language model: --shelf compares connectors in front of one, and an image is "
            f"one view of one size there, alone with its caption. Leave --shelf, further sizes, --images, --frames and "
            f"--sounds out, or name a stage with a language model."
        )
    if command.shelf and command.fit is not None:
        raise ValueError(
            "--shelf compares connectors, --fit says what one stage's training takes: ask for one of the two."
        )
    if command.shelf:
        for size in sizes:
            yield from shelf_tables(stage, size, command.text_tokens, inputs)
    elif command.fit is not None:
        for size in sizes:
            yield fit_table(stage, read_bytes(command.fit), size, command.text_tokens, inputs)
    elif alone:
        yield from alignment_tables(stage, image=sizes[0], text_tokens=command.text_tokens)
    else:
        yield from cost_tables(stage, image=sizes[0], text_tokens=command.text_tokens, inputs=inputs)
        if len(sizes) > 1:
            yield sizes_table(stage, sizes, command.text_tokens, inputs)
    if command.formulas:
        yield formula_table(stage)
        yield SYMBOLS


def find_stage(name: str) -> Stage:
    """The stage of a recipe or run folder, or one around a model that was imported, of a folder or of a hub id."""
    if name in RECIPES:
        return RECIPES[name]()
    folder = Path(name)
    if (folder / STAGE_FILE).is_file():
        run = Run(folder)
        return _imported(run) if "imported_from" in run.stage_json else saved_stage(folder)
    if not folder.is_dir() and (name.count("/") != 1 or name.split("/")[0] in {one.split("/")[0] for one in RECIPES}):
        raise ValueError(f"Unknown recipe {name!r}.{did_you_mean(name, RECIPES)} There are: {', '.join(RECIPES)}.")
    return _around(name, native_model(name))


def _imported(run: Run) -> Stage:
    """Around the model of a run that was imported, which has no stage.

    Raises:
        ValueError: it has no language model, and what a connector alone costs depends on its losses.
    """
    model = run.model_config
    if model.llm is None:
        raise ValueError(
            f"{run.folder} was imported ({run.stage_json['imported_from']}) without a language model: what it costs "
            f"depends on the losses that a stage trains it with. Name that stage's recipe: {', '.join(RECIPES)}."
        )
    return _around(run.name, model)


def _around(name: str, model: Model) -> Stage:
    return Stage(
        name=name,
        model=model,
        train=("connector",),
        data=(Source(of=WorldCaptions(split="train", num_scenes=1)),),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


def read_size(text: str) -> tuple[int, int]:
    """Width and height from '1344x896'.

    Raises:
        ValueError: no such pair of positive numbers.
    """
    match = re.fullmatch(r"(\d{1,6})[x*\u00d7](\d{1,6})", text.strip().lower())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= min(size) <= max(size) <= _LARGEST_SIDE:
        raise ValueError(f"{text!r} is no size of a picture. Write width and height in pixels, as --image 1344x896.")
    return size


def cost_tables(
    stage: Stage, *, image: tuple[int, int] | None, text_tokens: int, inputs: Inputs = ONE_IMAGE
) -> Iterator[Table | CountTable]:
    """The cost of a stage: by part, and as a whole."""
    bill = cost(stage.model, train=stage.train, image=image, text_tokens=text_tokens, inputs=inputs)
    samples = stage.micro_batch_size or stage.batch_size
    memory = training_memory(
        stage.model, train=stage.train, samples=samples, text_tokens=text_tokens, image=image, inputs=inputs
    )
    title = f"{stage.name}: {inputs.named(bill.image)}, {text_tokens} text tokens"
    every = PartCost(parameters=bill.parameters, learned=bill.learned, flops=bill.prefill_flops)
    yield parts_table(title, bill.parts, "all, and branches" if bill.branches else "all", every)
    if bill.branches:
        yield branches_table(bill.branches)
    yield _whole(stage, bill, memory, samples)


def branches_table(branches: Sequence[BranchCost]) -> CountTable:
    """Each branch with one view, a clip or a run of a sound's windows, and below what of the prompt goes through it.

    Of the prompt alone are the FLOPs of the other tables.
    """
    headings = ("branch", "tokens", "parameters", "that learn", "frozen", "FLOPs, forward")
    table = CountTable("Branches, with one view each: a clip, or a sound's windows", headings)
    for branch in branches:
        for name, part in branch.parts.items():
            table.add_row(f"{branch.name} {name}", "", *counts(part))
        table.add_section()
        every = PartCost(parameters=branch.parameters, learned=branch.learned, flops=branch.flops)
        table.add_row(f"{branch.name}, all", branch.tokens, *counts(every))
        if branch.views:
            views = f"{branch.name}, {branch.views} view{'s' * (branch.views > 1)} of the prompt"
            table.add_row(views, branch.visual_tokens, "", "", "", branch.prompt_flops)
        table.add_section()
    return table


def _whole(stage: Stage, bill: Cost, memory: TrainingMemory, samples: int) -> Table:
    cached = stage.cached_views > 0 and not bill.encoder.learned
    training = bill.training_flops(cached_features=cached)
    views = f" in {bill.views} views" if bill.views > 1 else ""
    positions, most = (
        bill.visual_tokens + bill.text_tokens,
        0 if stage.model.llm is None else stage.model.llm.max_tokens,
    )
    rows = {
        "visual tokens": f"{bill.visual_tokens:,}{views}",
        **({f"positions, above max_tokens {most:,}": f"{positions:,}"} if positions > most else {}),
        "FLOPs to the first token": f"{short(bill.prefill_flops + bill.head_flops)} (dense attention)",
        "FLOPs the visual tokens add in the LLM": f"{short(bill.llm_visual_flops)} (dense attention)",
        "LLM prefill, causal attention": short(bill.llm_causal_flops),
        "FLOPs of one position's logits": short(bill.head_flops),
        "KV cache": gib(bill.kv_bytes),
        **{f"LoRA parameters, {name}": f"{part.adapters:,}" for name, part in bill.parts.items() if part.adapters},
        "FLOPs to train on one sample": short(training) + (" (features kept)" if cached else ""),
        **memory_rows(memory, str(samples)),
    }
    return facts_table(rows)


def sizes_table(
    stage: Stage, sizes: Sequence[tuple[int, int] | None], text_tokens: int, inputs: Inputs = ONE_IMAGE
) -> CountTable:
    """One row a size of the picture."""
    table = CountTable(
        "By size of the picture", ("image", "views", "visual tokens", "FLOPs, all to the first token", "KV cache")
    )
    for size in sizes:
        bill = cost(stage.model, train=stage.train, image=size, text_tokens=text_tokens, inputs=inputs)
        flops = short(bill.prefill_flops + bill.head_flops)
        image = f"{bill.image[0]} x {bill.image[1]}"
        table.add_row(image, bill.views, bill.visual_tokens, flops, gib(bill.kv_bytes))
    return table


def shelf_tables(
    stage: Stage, image: tuple[int, int] | None, text_tokens: int, inputs: Inputs = ONE_IMAGE
) -> Iterator[CountTable | str]:
    """One row a connector, with its default choices; below, what needs another arrangement and what does not fit."""
    encoder, llm = getattr(stage.model.encoder, "name", "encoder"), stage.model.llm
    ends = f"{encoder} and {'nothing' if llm is None else llm.name}"
    table = CountTable(
        f"Every connector between {ends}{_of_prompt(image, inputs)}, {text_tokens} text tokens",
        ("connector", "visual tokens", "parameters", "FLOPs, forward", "FLOPs, all to the first token", "KV cache"),
    )
    remarks = []
    for row in shelf(stage.model, image=image, text_tokens=text_tokens, inputs=inputs):
        if row.bill is None:
            remarks.append(f" {row.name} does not fit: {row.misfit}")
            continue
        if row.arrange is not None:
            remarks.append(f" {row.name} is arranged by {row.arrange}, as it gives tokens for later layers too.")
        bill, part = row.bill, row.bill.connector
        whole = short(bill.prefill_flops + bill.head_flops)
        table.add_row(row.name, bill.visual_tokens, part.parameters, part.flops, whole, gib(bill.kv_bytes))
    yield table
    yield from remarks


def _of_prompt(image: tuple[int, int] | None, inputs: Inputs) -> str:
    """Of a picture whose size was named, or of other inputs than one picture."""
    if image is None and inputs == ONE_IMAGE:
        return ""
    return f", {inputs.named(image)}"


def fit_table(
    stage: Stage, budget: int, image: tuple[int, int] | None, text_tokens: int, inputs: Inputs = ONE_IMAGE
) -> CountTable:
    """Which micro-batch fits, for each precision, with and without checkpointing."""
    learns = ", ".join(stage.train)
    table = CountTable(
        f"{stage.name}{_of_prompt(image, inputs)}, training {learns}, in {gib(budget)}",
        ("precision", "samples at a time", "memory", "weights", "gradients and AdamW", "activations"),
    )
    passes = stage.passes if stage.model.llm is None else None
    length = text_tokens if passes is None else caption_length(stage, text_tokens)
    for fit in fits(
        stage.model, budget, train=stage.train, text_tokens=length, image=image, inputs=inputs, passes=passes
    ):
        memory = fit.memory
        table.add_row(
            f"{fit.precision}{', checkpointing' * fit.checkpointing}",
            fit.samples if fit.samples else "does not fit",
            gib(memory.total),
            gib(memory.weights),
            gib(memory.gradients + memory.optimizer),
            gib(memory.activations),
        )
    return table


def formula_table(stage: Stage) -> Table:
    """The formula of every quantity, part by part."""
    table = Table(title="Formulas")
    for heading in ("part", "quantity"):
        table.add_column(heading, no_wrap=True)
    table.add_column("formula", overflow="fold")
    for formula in formulas(stage.model):
        table.add_row(formula.part, formula.quantity, formula.text.replace("[", "\\["))
    return table
