"""Stages for the command line: the one in a run folder, and the samples of one as the model will read them."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from isthmus.branches import plan_inputs
from isthmus.cli.commands import Train
from isthmus.compare.blind import Blind
from isthmus.data.captions import captions_of
from isthmus.data.check import check, check_captions
from isthmus.data.prompts import split_turns
from isthmus.data.sample import Sample
from isthmus.features import Plan
from isthmus.model import Model
from isthmus.runs import Run
from isthmus.train.options import RunOptions
from isthmus.train.stage import TYPES as STAGE_TYPES
from isthmus.train.stage import Stage, read_stage

TYPES: dict[str, type] = {**STAGE_TYPES, Blind.__name__: Blind}
"""Every config class that a saved stage may name, those of a study's blind arm among them."""


def run_options(command: Train) -> RunOptions:
    """How `isthmus train` carries a run out; curves are written where tensorboard is installed."""
    board = command.tensorboard and importlib.util.find_spec("tensorboard") is not None
    return RunOptions(tensorboard=board, shard=command.shard, pack=command.pack)


def how_to_ask(stage: Stage, folder: Path) -> str:
    """The command that asks a finished run of this stage, about an input that a connector was trained for."""
    learnt = {".".join(name.split(".")[:2]) for name in stage.train}
    asked = 'image.jpg "What is in the picture?"'
    if "connector" not in {name.split(".")[0] for name in stage.train}:
        if "video.connector" in learnt:
            asked = 'clip.mp4 "What happens in this clip?"'
        elif "audio.connector" in learnt:
            asked = 'sound.wav "What is heard?"'
    return f"Ask it: isthmus ask {folder} {asked}"


def saved_stage(folder: Path) -> Stage:
    """The stage that a run folder was started with. Raises ValueError when the folder holds none, or was imported."""
    run = Run(folder)
    told = run.stage_json
    if "imported_from" in told:
        raise ValueError(
            f"{folder} was imported ({told['imported_from']}): nothing was trained here, so there is no training to "
            f"judge or resume, and no validation to search. Train from it: isthmus train RECIPE --start {folder}"
        )
    try:
        return read_stage(run, TYPES)
    except ValueError as error:
        version, commit = told.get("isthmus"), told.get("commit")
        raise ValueError(
            f"{folder} was saved by isthmus {version}{f', commit {commit}' if commit else ''}, and this one does not "
            f"read its stage: {error} Open it with that version, or train it again."
        ) from error


def checked_samples(stage: Stage, *, num: int, scan: int) -> Iterator[tuple[str, list[Text]]]:
    """For each source a title and `num` printed samples, after `scan` of them were collated as in training.

    Without a language model a sample is a caption in the connector's own tokens.

    Raises:
        ValueError: a sample without supervised tokens, with image places and images that differ in number, or with an
            image that cannot be read; it is named.
    """
    if num < 0 or scan < 0:
        raise ValueError(f"--num {num} and --scan {scan} count samples: give 0 or more.")
    llm = stage.model.llm
    if llm is None:
        yield from _checked_captions(stage, num=num, scan=scan)
        return
    tokenizer = llm.tokenizer()
    for number, source in enumerate(stage.data):
        dataset = source.of.build()
        wanted = min(max(num, scan), len(dataset))
        lines: list[Text] = []
        for index in range(wanted):
            sample = dataset[index]
            parts = split_turns(sample, history=False) if llm.kind == "encoder-decoder" else [sample]
            batch = stage.model.batch(parts, tokenizer=tokenizer, plans=_plans(stage.model, parts))
            if index < num:
                lines += check(batch, tokenizer)
        title = f"data.{number}: {type(source.of).__name__}, weight {source.weight:g}, {len(dataset)} samples"
        yield f"{title}; {wanted} checked", lines


def _checked_captions(stage: Stage, *, num: int, scan: int) -> Iterator[tuple[str, list[Text]]]:
    form = stage.model.connector.captions
    if form == "none":
        raise ValueError(f"{type(stage.model.connector).__name__} reads no captions, and there is no language model.")
    tokenizer = stage.model.connector.tokenizer()
    for number, source in enumerate(stage.data):
        dataset = source.of.build()
        samples = [dataset[index] for index in range(min(max(num, scan), len(dataset)))]
        made, cut = captions_of(samples, tokenizer=tokenizer, style=stage.model.captions, form=form)
        passes, named = stage.passes, [sample.id for sample in samples[:num]]
        asked = {"contrast": passes.contrast, "match": passes.match > 0, "write": passes.write}
        lines = check_captions(made, named, tokenizer, **asked)
        title = f"data.{number}: {type(source.of).__name__}, weight {source.weight:g}, {len(dataset)} samples"
        yield f"{title}; {len(samples)} checked, {cut} lose their end", lines


def _plans(model: Model, samples: list[Sample]) -> tuple[Plan, ...]:
    encoders = {"image": model.encoder, **{name: branch.encoder for name, branch in model.branches.items()}}
    return plan_inputs(samples, encoders, tile_several=model.encoder.tiles_several())
