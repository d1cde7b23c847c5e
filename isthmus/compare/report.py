"""The report: one HTML file that needs no other, with the verdict in words first. Everything from data is escaped."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from isthmus.compare import plots
from isthmus.compare.breakdown import Breakdown
from isthmus.compare.judge import headline_words
from isthmus.compare.results import JobResult, Results, write_whole
from isthmus.compare.significance import interval
from isthmus.compare.table import COLUMNS, rows, short_seconds, with_half
from isthmus.compare.verdict import Comparison, Verdict, points, span

MANY = 8
"""With more arms than these, arms are rows where they are columns otherwise."""
FIELD_NAMES = {
    "better": "clearly higher",
    "worse": "clearly lower",
    "not separable": "not separable at this budget",
    "within the margin": "higher by less than the margin",
    "not converged": "lower arm not converged: not judged",
}


@dataclass(frozen=True, kw_only=True)
class Example:
    """A held-out picture with its question, the accepted answers, and what each arm said (arm, answer, score)."""

    picture: str
    """A data URI."""
    task: str
    question: str
    truth: str
    said: tuple[tuple[str, str, float], ...]
    credit: str = ""


def thumbnail(image: Image.Image, side: int = 192) -> str:
    """An image as a small PNG data URI; tiny pictures are enlarged without smoothing."""
    image = image.convert("RGB")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    small.save(target, format="JPEG", quality=86)
    return plots.data_uri(target.getvalue(), "image/jpeg")


def controls_table(results: Results) -> list[list[str]]:
    """Headline accuracy of each arm with the image, the mean image, other items' images, or without a language model
    as scored, by comparison alone, and by chance: rows of text."""
    if results.aligned:
        chance = points(fmean(results.task(task).levels.chance for task in results.headline))
        return [[*_cells(results, arm, ("none", "compared")), chance] for arm in results.arms]
    made = []
    for arm in (*results.arms, results.blind_arm):
        if arm is None:
            continue
        cells = _cells(results, arm, ("none", "mean-image", "shuffled", "text-only"))
        if any(cells[1:]):
            made.append(cells)
    return made


def _cells(results: Results, arm: str, ways: Sequence[str]) -> list[str]:
    every = (results.accuracy(arm, results.headline, way) for way in ways)
    return [arm, *(points(fmean(values.values())) if values else "" for values in every)]


def families_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Accuracy by task for every arm, with the three levels: header and rows of text. Of many arms each is a row."""
    arms = [*results.arms, *([results.blind_arm] if results.blind_arm is not None else [])]
    made = []
    for task in results.tasks:
        cells = [task.title, task.kind, f"{task.count:,}"]
        for arm in arms:
            values = results.accuracy(arm, (task.name,), "text-only" if arm == results.blind_arm else "none")
            cells.append(points(fmean(values.values())) if values else "")
        made.append([*cells, *(points(getattr(task.levels, name)) for name, *_ in plots.levels_of(results))])
    asked = "queries" if results.aligned else "questions"
    named = [name.removesuffix(" class") for _, name, *_ in plots.levels_of(results)]
    header = ["task", "pictures", asked, *arms, *named]
    if len(arms) <= MANY:
        return header, made
    turned = [list(column) for column in zip(header, *made, strict=True)]
    return turned[0], turned[1:]


def parts_table(results: Results, breakdown: Breakdown) -> tuple[list[str], list[list[str]]]:
    """Accuracy of every arm on the parts of one task, with half the interval over seeds: header and rows of text."""
    lines = [["questions", *(f"{count:,}" for count in breakdown.counts)]]
    for arm in (*results.arms, results.blind_arm):
        if arm is not None and breakdown.accuracy.get(arm):
            parts = range(len(breakdown.parts))
            lines.append([arm, *(with_half(interval(breakdown.of(arm, part))) for part in parts)])
    return [breakdown.by, *breakdown.parts], lines


def rates_table(results: Results) -> list[list[str]]:
    """Validation loss of every arm at every rate that was tried: rows of arm, rate, loss, what came of it."""
    made = []
    for arm in (*results.arms, results.blind_arm):
        tried: dict[float, list[JobResult]] = {}
        for job in results.jobs:
            if job.kind == "tune" and job.arm == arm:
                tried.setdefault(job.rate, []).append(job)
        for rate, jobs in sorted(tried.items()):
            chosen = ["chosen"] if arm is not None and rate == results.rate(arm) else []
            alike = ["visual tokens became alike"] if any(job.alike for job in jobs) else []
            loss = fmean(job.validation_loss for job in jobs)
            made.append([str(arm), f"{rate:g}", f"{loss:.4f}", ", ".join(chosen + alike)])
    return made


def costs_table(results: Results) -> list[list[str]]:
    """Core time by purpose: rows of text."""
    parts = {
        "encoding pictures, counting levels": sum(j.prepare_core_seconds for j in results.jobs),
        "choosing learning rates": sum(j.train_core_seconds for j in results.jobs if j.kind == "tune"),
        "training the stages before": sum(j.train_core_seconds for j in results.jobs if j.kind == "before"),
        "training the judged runs": sum(j.train_core_seconds for j in results.jobs if j.kind == "final"),
        "asking and scoring": sum(j.evaluate_core_seconds for j in results.jobs),
    }
    calls = sum(job.encoder_calls for job in results.jobs)
    return [
        *([name, short_seconds(value)] for name, value in parts.items()),
        ["all of it, on one core", short_seconds(results.core_seconds)],
        ["images encoded inside these jobs", f"{calls:,}"],
    ]


def render(
    results: Results,
    verdict: Verdict,
    *,
    examples: Sequence[Example] = (),
    config: Mapping[str, Any] | None = None,
) -> str:
    """The page as text. `config` is the study as JSON."""
    environment = Environment(
        loader=PackageLoader("isthmus.compare", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    family_header, family_rows = families_table(results)
    page = environment.get_template("report.html.jinja").render(
        results=results,
        verdict=verdict,
        headline=headline_words(results),
        columns=COLUMNS,
        rows=rows(results, verdict),
        paint=plots.colours(results.arms, results.blind_arm),
        tradeoff=plots.accuracy_against_cost(results),
        families=plots.families(results),
        curves=plots.loss_curves(results),
        breakdowns=[(one.title, plots.by_part(results, one), *parts_table(results, one)) for one in results.breakdowns],
        family_header=family_header,
        family_rows=family_rows,
        pairs=[_pair(comparison) for comparison in verdict.comparisons],
        effects=[
            (e.factor, e.left, e.right, points(e.difference.mean, True), span(e.difference)) for e in verdict.effects
        ],
        controls=controls_table(results),
        rises=[(judged.arm, judged.rise, judged.converged) for judged in verdict.arms],
        rates=rates_table(results),
        costs=costs_table(results),
        examples=[dataclasses.asdict(example) for example in examples],
        config=json.dumps(config, indent=2, ensure_ascii=False) if config is not None else "",
    )
    return str(page)


def _pair(comparison: Comparison) -> tuple[str, str, str, str, str, str]:
    return (
        comparison.left,
        comparison.right,
        points(comparison.difference.mean, True),
        span(comparison.difference),
        f"{comparison.p_holm:.2g}",
        FIELD_NAMES[comparison.word],
    )


def write_report(
    path: Path,
    results: Results,
    verdict: Verdict,
    *,
    examples: Sequence[Example] = (),
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write the page; it appears whole or not at all."""
    write_whole(path, render(results, verdict, examples=examples, config=config))
