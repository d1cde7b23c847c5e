"""What `isthmus doctor` reads and prints: a run's log, one more look at its weights, the verdict with what to do."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from isthmus.cli.commands import Doctor
from isthmus.cli.stages import saved_stage
from isthmus.data.sample import Sample
from isthmus.evaluate.sight import open_run
from isthmus.measure.checkup import check_up
from isthmus.measure.doctor import Facts, History, Line, Verdict, compare_band, judge, majority_loss
from isthmus.runs import STAGE_FILE, WEIGHTS_FILE, Run
from isthmus.train.chain import CHAIN_FILE, read_chain
from isthmus.train.stage import Stage
from isthmus.train.watch import facts_of

ROWS = 16
"""Rows that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The verdict, what it rests on, and the file that keeps it."""

    verdict: Verdict
    facts: Facts
    history: History
    path: Path


def runs_in(folder: Path) -> tuple[Path, ...]:
    """The run folder itself, or of a chain's folder those of its stages that have begun.

    Raises:
        ValueError: a chain of which none has.
    """
    if not (folder / CHAIN_FILE).is_file():
        return (folder,)
    begun = tuple(run for run in read_chain(folder).folders(folder) if (run / STAGE_FILE).is_file())
    if not begun:
        raise ValueError(f"{folder} holds a chain that has not begun. Train it: isthmus train --resume {folder}")
    return begun


def diagnose(command: Doctor) -> Diagnosis:
    """Judge a run by its log and, where weights were saved, by one look over samples that it has not learnt from.

    Raises:
        ValueError: no run, or nothing was logged.
    """
    run, stage = Run(command.run), saved_stage(command.run)
    lines: list[Line] = run.log()
    if not lines:
        raise ValueError(f"{command.run} has logged nothing yet. Train it: isthmus train --resume {command.run}")
    steps = max(int(line["step"]) for line in lines)
    facts = facts_of(stage, int(run.result["steps"]) if run.finished else stage.steps or steps)
    if command.num and (run.folder / WEIGHTS_FILE).is_file() and not any("broke_down" in line for line in lines):
        signs = looked(run, stage, facts, command.num)
        lines = [*lines, {"step": steps, **signs}] if signs else lines
    skipped = len(run.result.get("skipped", ())) if run.finished else 0
    verdict = judge(facts, lines, skipped=skipped, samples=steps * stage.batch_size)
    path = run.folder / "report" / "doctor.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(verdict.to_json(), indent=1), encoding="utf-8")
    return Diagnosis(verdict=verdict, facts=facts, history=History(lines), path=path)


def looked(run: Run, stage: Stage, facts: Facts, num: int) -> dict[str, float]:
    """The signs of a run's weights over the first `num` usable samples of its validation, or else of its data."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, encoder = open_run(run, device)
    found: list[dict[str, float]] = []
    samples = list(_pictured(stage, num))
    for some in (samples[first : first + ROWS] for first in range(0, len(samples), ROWS)):
        if len(some) > 1:
            features, plans = encoder.features([image for sample in some for image in sample.images])
            batch = model.config.batch(some, tokenizer=model.tokenizer, plans=plans, features=features)
            found.append(check_up(model, batch.to(device), facts.losses))
    return _joined(found)


def _pictured(stage: Stage, num: int) -> Iterator[Sample]:
    """Samples with images alone that can be read."""
    left = num
    for source in stage.validation or stage.data:
        dataset = source.of.build()
        for index in range(min(len(dataset), 4 * num)):
            if not left:
                return
            try:
                sample = dataset[index]
                for image in sample.images:
                    image.load()
            except ValueError:
                continue
            if sample.images and not sample.videos and not sample.sounds:
                left -= 1
                yield sample


def _joined(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over batches; an error of a mean of n batches falls by their number."""
    joined: dict[str, float] = {}
    for name in dict.fromkeys(name for signs in found for name in signs):
        values = [signs[name] for signs in found if name in signs]
        joined[name] = sum(values) / len(values)
        if name.endswith("_error"):
            joined[name] = math.sqrt(sum(value**2 for value in values)) / len(values)
    return joined


def expected(facts: Facts) -> dict[str, str]:
    """What each sign looks like in a run that learns."""
    chance, least = compare_band(facts.pairs, facts.smoothing)
    return {
        **{
            name: f"below {chance:.3f} (log {facts.pairs}); {least:.3f} is the least"
            for name in facts.losses
            if name.startswith("itc")
        },
        "itm": f"below {majority_loss(facts.true_share):.3f}, the loss of one answer for all",
        "itg": "falls from the log of the vocabulary",
        "loss": "falls, and not to 0 from the start",
        "grad_norm": "finite, without jumps",
        "itm_right_matches": "above 0.5, rising",
        "itm_right_others": "above 0.5, rising",
        "itm_by_text": "about as large as itm_by_image",
        "itm_by_image": "well above 0",
        "itg_image_gain": "above 0, rising",
        "temperature": "0.005 to 0.3",
        "query_rank": "well above 1",
        "query_cosine": "below 0.999",
        "query_distinct": "near 1",
        "image_cosine": "below 1: images differ",
        "text_cosine": "below 1: captions differ",
        "attention_entropy": "below 1 (1 looks at all patches alike)",
        "visual_rank": "well above 1",
        "visual_cosine": "below 0.999",
        "visual_norm": "below 100 x word_norm, steady",
        "word_norm": "fixed while the language model is frozen",
        "image_gain": "above 0 by twice its error",
        "image_gain_error": "",
        "feature_max": "far below 65504 where the encoder is in float16",
    }


def table(diagnosis: Diagnosis) -> Table:
    """Every sign at first, lately and at last, with what is expected."""
    made = Table("sign", title=f"{diagnosis.verdict.steps} steps")
    for heading in ("first", "lately", "last"):
        made.add_column(heading, justify="right")
    made.add_column("in a run that learns")
    history = diagnosis.history
    for name, wanted in expected(diagnosis.facts).items():
        values = (history.first(name), history.late(name), history.last(name))
        if any(value is not None for value in values):
            made.add_row(name, *("" if value is None else f"{value:.4g}" for value in values), wanted)
    return made


def sentences(verdict: Verdict) -> list[str]:
    """The verdict in words, causes before consequences."""
    told = [f"{one.grade.upper()} {one.name}: {one.says}\n  What to do: {one.do}" for one in verdict.findings]
    if verdict.early:
        told.append(f"After {verdict.steps} steps it is too early to judge what is learnt.")
    elif not told:
        told.append("Healthy: none of the known failures.")
    return told
