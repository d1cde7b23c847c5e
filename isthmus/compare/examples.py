"""What the report shows of single answers: accuracy by part of a task, and pictures by a rule, not by hand."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from isthmus.compare.asking import items_of
from isthmus.compare.breakdown import Breakdown, break_down
from isthmus.compare.jobs import Job
from isthmus.compare.report import Example, thumbnail
from isthmus.compare.results import Results
from isthmus.compare.study import TASKS, TEXT_ONLY, Study
from isthmus.data.boxes import draw_boxes, parse_boxes
from isthmus.data.sample import Sample
from isthmus.data.video import mosaic
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.levels import question_of
from isthmus.evaluate.record import Answer, read_answers
from isthmus.evaluate.task import Task
from isthmus.features import Clip, Sound

PER_TASK = 2
OWN = "its own"
"""What stands for the right description, which the card shows already."""


def first_answers(jobs: Sequence[Job]) -> dict[str, dict[str, Answer]]:
    """Arm -> item -> answer, of each arm's first seed."""
    found: dict[str, dict[str, Answer]] = {}
    for job in sorted(jobs, key=lambda job: job.seed):
        path = _own_answers(job)
        if job.arm not in found and path.is_file():
            found[job.arm] = {answer.item: answer for answer in read_answers(path)}
    return found


def _own_answers(job: Job) -> Path:
    return job.folder / "answers" / ("text-only.jsonl" if job.arm == TEXT_ONLY else "none.jsonl")


def broken_down(jobs: Sequence[Job], study: Study) -> tuple[Breakdown, ...]:
    """Every task of the study that says by what, in parts, with the answers of all judged runs."""
    asked = (TASKS[task] for task in study.tasks)
    parted = [task for task in asked if isinstance(task, Task) and task.by]
    if not parted:
        return ()
    answers: dict[str, dict[int, dict[str, Answer]]] = {}
    for job in jobs:
        if (path := _own_answers(job)).is_file():
            answers.setdefault(job.arm, {})[job.seed] = {answer.item: answer for answer in read_answers(path)}
    made = (
        break_down(
            items_of(task.name, study.items_of(task.name)), answers,
            task=task.name, title=task.title, by=task.by, words=task.by_title,
        )
        for task in parted
    )  # fmt: skip
    return tuple(one for one in made if one is not None)


def pick_examples(results: Results, jobs: Sequence[Job], study: Study) -> list[Example]:
    """For every task the first items on which the arms disagree, else the first items; one of each picture."""
    answers = first_answers(jobs)
    order = [arm for arm in (*results.arms, TEXT_ONLY) if arm in answers]
    examples: list[Example] = []
    for task in study.tasks:
        if TASKS[task].form == "retrieval" or not order:
            continue
        items = [item for item in items_of(task, study.items_of(task)) if all(item.id in answers[arm] for arm in order)]
        chosen = sorted(items, key=lambda item: not _disagree(item, answers, order))
        shown: set[str] = set()
        for item in chosen:
            key = item.inputs[0].ref.key if item.inputs else item.id
            if key not in shown and len(shown) < PER_TASK:
                shown.add(key)
                with contextlib.suppress(ValueError):  # a picture that cannot be read is not shown
                    examples.append(_example(item, task, answers, order))
    return examples


def _disagree(item: Sample, answers: Mapping[str, Mapping[str, Answer]], order: Sequence[str]) -> bool:
    seeing = [arm for arm in order if arm != TEXT_ONLY]
    return len({answers[arm][item.id].score >= 0.5 for arm in seeing}) > 1


def _picture(item: Sample, said: Sequence[tuple[str, str, float]]) -> Image.Image:
    """The item's first input as a picture; with the right box and every arm's where boxes are asked for."""
    picture = _seen(item)
    if item.meta.get("metric") != "box":
        return picture
    named = [("truth", str(answer)) for answer in item.meta["answers"]] + [(arm, text) for arm, text, _ in said]
    return draw_boxes(picture, [replace(box, name=name) for name, text in named for box in parse_boxes(text)[:1]])


def _seen(item: Sample) -> Image.Image:
    """An image, the frames of a clip side by side, or the loudness of a sound in time."""
    if not item.inputs:
        raise ValueError(f"{item.id!r} has no picture to show.")
    loaded = item.inputs[0].ref.load()
    if isinstance(loaded, Clip):
        return mosaic(loaded.frames, columns=min(4, len(loaded.frames)))
    return _drawn(loaded) if isinstance(loaded, Sound) else loaded


def _drawn(sound: Sound, width: int = 192, height: int = 64) -> Image.Image:
    """The largest sample of each of `width` stretches, above and below the middle."""
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    for place, part in enumerate(np.array_split(np.abs(sound.samples), width)):
        tall = round(height / 2 * min(1.0, float(part.max(initial=0.0))))
        pen.line((place, height // 2 - tall, place, height // 2 + tall), fill="black")
    return picture


def _example(item: Sample, task: str, answers: Mapping[str, Mapping[str, Answer]], order: Sequence[str]) -> Example:
    found = [(arm, answers[arm][item.id]) for arm in order]
    matched = task in ALIGNMENT
    said = tuple((arm, OWN if matched and one.score == 1.0 else one.prediction, one.score) for arm, one in found)
    return Example(
        picture=thumbnail(_picture(item, said)),
        task=TASKS[task].title,
        question="Which description is its own?" if matched else question_of(item),
        truth=" / ".join(str(answer) for answer in item.meta["answers"]),
        said=said,
        credit=str(item.meta.get("credit", "")),
    )
