"""Evaluate a run without a language model from the command line: retrieval both ways among its held-out captions."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from rich.table import Table

from isthmus.cli.commands import Evaluate
from isthmus.cli.stages import saved_stage
from isthmus.data.sample import Sample
from isthmus.encoders import CachedEncoder, FeatureCache
from isthmus.encoders.cache import default_folder
from isthmus.evaluate.gallery import RANKS, Retrieved, make_gallery, retrieve_both_ways
from isthmus.evaluate.sight import OwnEncoder
from isthmus.runs import Run
from isthmus.train.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of it, and the file that holds the recalls."""

    retrieved: Retrieved
    path: Path


def retrieve_run(command: Evaluate) -> Found:
    """Recalls of a run over the first `num` samples of its validation sources, saved in the run's folder.

    Raises:
        ValueError: tasks or a control were named, which ask a language model, or the stage has no validation.
    """
    if command.tasks or command.control != "none":
        raise ValueError(
            f"{command.run} was trained without a language model: it retrieves, and answers no tasks. "
            f"Leave out --tasks and --control."
        )
    stage = saved_stage(command.run)
    samples = list(_held_out(stage, command.num))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learnt = stage.learns("encoder")
    model = Run(command.run).load_model(device, with_encoder=learnt)
    encoder = (
        OwnEncoder(model)
        if learnt
        else CachedEncoder(model.config.encoder, FeatureCache(default_folder()), device=device)
    )
    with Progress() as bars:
        bar = bars.add_task("Judging")
        retrieved = retrieve_both_ways(
            model,
            make_gallery(samples),
            encoder=encoder,
            batch_size=command.batch_size,
            on_progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    path = Path(command.run) / "report" / "retrieval.json"
    path.parent.mkdir(exist_ok=True)
    told = {"by_comparison": asdict(retrieved.by_comparison), "judged": asdict(retrieved.judged)}
    path.write_text(json.dumps({"ranks": RANKS, **told}, indent=1), encoding="utf-8")
    return Found(retrieved=retrieved, path=path)


def table(found: Found) -> Table:
    """Recalls in percent: by comparison alone, and judged again."""
    one = found.retrieved.judged
    made = Table(f"{one.num_images} images, {one.num_texts} texts; R@1 by chance {100 * one.chance:.1f}")
    for rank in RANKS:
        made.add_column(f"R@{rank}", justify="right")
    for name, recalls in (("compared", found.retrieved.by_comparison), ("judged", found.retrieved.judged)):
        for way, values in (("image to text", recalls.to_text), ("text to image", recalls.to_image)):
            made.add_row(f"{way}, {name}", *(f"{100 * value:.1f}" for value in values))
    return made


def _held_out(stage: Stage, num: int) -> Iterator[Sample]:
    if not stage.validation:
        raise ValueError(f"Stage {stage.name!r} has no validation sources, so there is no gallery to search.")
    for source in stage.validation:
        dataset = source.of.build()
        yield from (dataset[index] for index in range(min(num, len(dataset))))
