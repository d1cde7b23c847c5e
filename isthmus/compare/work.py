"""What a worker does with a job: encode pictures, train, ask, and leave every answer in the job's folder."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from isthmus.compare.aligning import Aligning, chance_in
from isthmus.compare.asking import Answering, items_of
from isthmus.compare.jobs import AskedToAlign, Job
from isthmus.compare.results import JobResult, write_whole
from isthmus.compare.study import TEXT_ONLY
from isthmus.data.mixture import Mixture
from isthmus.data.sample import ImageRef, Sample
from isthmus.encoders import CachedEncoder, EncoderConfig, FeatureCache, ImageSource, Untiled
from isthmus.encoders.cache import default_folder
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.levels import Levels, levels
from isthmus.measure.doctor import tokens_alike
from isthmus.runs import STAGE_FILE, WEIGHTS_FILE, Run
from isthmus.train.loop import train
from isthmus.train.progress import Progress
from isthmus.train.stage import Stage

Report = Callable[[float, str], None]
"""Called with the part of the job that is done (0..1) and a few words."""

EARLY_FILE = "early.safetensors"
"""The weights as they were after four fifths of the steps."""
LEVELS_FILE = "levels.json"
REFERENCE = 1_000
"""Training questions a task that blind guesses are learned on."""
CACHE_GIB = 8.0
_AT_ONCE = 32
_TRAIN_SHARE = 0.75
"""The part of a final job's time that training is taken to be, for its progress alone."""


def work(job: Job, report: Report) -> None:
    """Do a job. What was done before is not done again.

    Raises:
        ValueError: the job cannot be done (a loss that is not finite, say).
    """
    if job.kind == "features":
        encode_share(job, report)
    elif job.kind == "levels":
        find_levels(job, report)
    elif job.kind == "before":
        train_before(job, report)
    else:
        train_and_ask(job, report)


def cached_encoder(config: EncoderConfig) -> CachedEncoder:
    """The frozen encoder's plain views, from the cache that training uses too."""
    return CachedEncoder(config, FeatureCache(default_folder(), max_gib=CACHE_GIB), views=1, chunk=1)


def encode_share(job: Job, report: Report) -> None:
    """Encode this job's share of the pictures that its stages and tasks read and that the cache does not hold.

    Also of the clips and sounds that stages with branches for them are trained on.
    """
    begun = time.process_time()
    number, of = job.share
    encoder = cached_encoder(job.stages[0].model.encoder)
    asked = job.asked
    assert asked is not None
    report(0.0, "listing pictures")
    pictures = list(_pictures(job.stages, asked.tasks))
    own: list[ImageSource] = list({image.key: image for image in pictures[number::of]}.values())
    work = [(encoder, own[start : start + _AT_ONCE]) for start in range(0, len(own), _AT_ONCE)]
    for config, refs in _of_branches(job.stages):
        kept, mine = cached_encoder(config), refs[number::of]
        work += [(kept, mine[start : start + _AT_ONCE]) for start in range(0, len(mine), _AT_ONCE)]
    done, total = 0, sum(len(some) for _, some in work)
    for kept, some in work:
        _encode(kept, some)
        done += len(some)
        report(done / total, f"{done}/{total} inputs")
    spent = time.process_time() - begun
    calls = sum(one.encoder_calls for one in {id(one): one for one, _ in work}.values())
    job.finish(JobResult(job=job.name, kind="features", prepare_core_seconds=spent, encoder_calls=calls))


def find_levels(job: Job, report: Report) -> None:
    """What can be had on each task without looking, with guesses learned on the training split: `levels.json`."""
    assert job.asked is not None
    begun = time.process_time()
    found = {}
    for place, (task, num) in enumerate(job.asked.tasks):
        report(place / len(job.asked.tasks), task)
        count, known = chance_in(task, num) if task in ALIGNMENT else _guessed(task, num)
        found[task] = {"count": count, **dataclasses.asdict(known)}
    write_whole(job.folder / LEVELS_FILE, json.dumps(found, indent=1))
    job.finish(JobResult(job=job.name, kind="levels", prepare_core_seconds=time.process_time() - begun))


def _guessed(task: str, num: int) -> tuple[int, Levels]:
    items = items_of(task, num)
    return len(items), levels(items, BENCHMARKS[task].items("train", REFERENCE))


def _encode(encoder: CachedEncoder, images: Sequence[ImageSource]) -> None:
    """Encode these; a picture that cannot be read is left to the loader, which counts and names it."""
    try:
        encoder.features(images)
    except ValueError:
        if len(images) > 1:
            for image in images:
                _encode(encoder, [image])


def _pictures(stages: Sequence[Stage], tasks: Sequence[tuple[str, int]]) -> Iterator[ImageRef]:
    seen: set[str] = set()
    for sample in _samples(stages, tasks):
        for image in (*sample.images, *sample.meta.get("candidates", ())):
            if image.key not in seen:
                seen.add(image.key)
                yield image


def _of_branches(stages: Sequence[Stage]) -> list[tuple[EncoderConfig, list[ImageSource]]]:
    """Every frozen encoder of clips or sounds, with what these stages show it, each once."""
    encoders: dict[str, EncoderConfig] = {}
    shown: dict[str, dict[str, ImageSource]] = {}
    for stage in stages:
        for name, branch in stage.model.branches.items():
            if stage.learns_in(f"{name}.encoder"):
                continue
            known = branch.encoder.fingerprint()
            encoders[known] = branch.encoder
            for sample in _samples([stage], ()):
                for kind, ref in sample.inputs:
                    if kind == name:
                        shown.setdefault(known, {}).setdefault(ref.key, Untiled(of=ref))
    return [(encoders[known], list(refs.values())) for known, refs in shown.items()]


def _samples(stages: Sequence[Stage], tasks: Sequence[tuple[str, int]]) -> Iterator[Sample]:
    """Every sample that these stages train on and validate with, then every benchmark item."""
    read: set[tuple[object, ...]] = set()
    for stage in stages:
        assert stage.steps is not None
        for sources, seed, block, most in (
            (stage.data, stage.seed, stage.block, stage.steps * stage.batch_size),
            (stage.validation, 0, 1, None),
        ):
            if not sources or (sources, seed, block, most) in read:
                continue
            read.add((sources, seed, block, most))
            mixture = Mixture(sources, seed=seed, block=block, accept=lambda sample: None)
            for position in range(len(mixture) if most is None else min(most, len(mixture))):
                yield mixture[position]
    for name, num in tasks:
        yield from items_of(name, num)


def train_before(job: Job, report: Report) -> None:
    """Train the stages that other jobs start from, one from the other."""
    job.folder.mkdir(parents=True, exist_ok=True)
    start: Path | None = None
    for number, (stage, folder) in enumerate(zip(job.stages, job.runs, strict=True)):
        run = _train(job, stage, folder, start, _part_of(report, number, len(job.stages)))
        start = folder
    job.finish(
        JobResult(
            job=job.name,
            kind="before",
            arm=job.arm,
            seed=job.seed,
            rate=job.stages[-1].optimizer.peak_lr,
            steps=sum(stage.steps or 0 for stage in job.stages),
            validation_loss=float(run.result["validation_loss"]),
            train_core_seconds=_spent(job.folder),
        )
    )


def _part_of(report: Report, place: int, of: int) -> Report:
    return lambda part, words: report((place + part) / of, words)


def train_and_ask(job: Job, report: Report) -> None:
    """Train the job's stage; a final job is then asked its questions, also as it was before the last fifth."""
    job.folder.mkdir(parents=True, exist_ok=True)
    training_share = _TRAIN_SHARE if job.kind == "final" else 1.0
    run = _train(job, job.stage, job.runs[0], job.start, lambda part, words: report(training_share * part, words))
    log = run.log()
    result = JobResult(
        job=job.name,
        kind="final" if job.kind == "final" else "tune",
        arm=job.arm,
        seed=job.seed,
        rate=job.rate,
        steps=int(run.result["steps"]),
        validation_loss=float(run.result["validation_loss"]),
        train_core_seconds=_spent(job.folder),
        before_core_seconds=0.0 if job.before is None else job.before.result().train_core_seconds,
        train_curve=tuple((line["step"], line["loss"]) for line in log if isinstance(line.get("loss"), float)),
        validation_curve=tuple((line["step"], line["validation_loss"]) for line in log if "validation_loss" in line),
        alike=job.kind == "tune" and job.arm != TEXT_ONLY and tokens_alike(log),
    )
    if job.asked is not None:
        begun = time.process_time()
        encoder = None if job.stage.learns("encoder") else cached_encoder(job.stage.model.encoder)
        folder = job.folder / "answers"
        asking = (
            Aligning(run, job.asked, encoder, folder)
            if isinstance(job.asked, AskedToAlign)
            else Answering(run, job.asked, encoder, folder)
        )
        asking.ask(lambda part, words: report(training_share + (1.0 - training_share) * part, words))
        scores, counts = asking.scores(), asking.counts()
        early = asking.early_accuracy(job.folder / "run" / EARLY_FILE)
        result = dataclasses.replace(
            result,
            scores=scores,
            counts=counts,
            watched=None if early is None else (early, asking.watched_accuracy()),
            first_token_ms=asking.first_token_ms(),
            evaluate_core_seconds=time.process_time() - begun,
            encoder_calls=0 if encoder is None else encoder.encoder_calls,
        )
    job.finish(result)


def _train(job: Job, stage: Stage, folder: Path, start: Path | None, report: Report) -> Run:
    """Train, or go on training, one stage of a job; core time is added up over attempts and stages."""
    early, before = folder / EARLY_FILE, 4 * stage.save_every
    begun, earlier, part = time.process_time(), _spent(job.folder), 0.0

    def watch(progress: Progress) -> None:
        nonlocal part
        words: str = progress.phase
        if progress.phase == "train":
            part = progress.done / max(1, progress.total)
            words = f"step {progress.done}/{progress.total}{_loss(progress)}"
            if progress.done > before and job.kind == "final" and not early.exists():
                _keep(folder / WEIGHTS_FILE, early)
        report(part, words)
        write_whole(job.folder / _SPENT, f"{earlier + time.process_time() - begun:.3f}")

    run = train(stage, folder, resume=(folder / STAGE_FILE).is_file(), start=start, progress=False, on_progress=watch)
    if time.process_time() - begun > 1.0 or not earlier:
        write_whole(job.folder / _SPENT, f"{earlier + time.process_time() - begun:.3f}")
    return run


_SPENT = "core_seconds.txt"


def _spent(folder: Path) -> float:
    path = folder / _SPENT
    return float(path.read_text()) if path.is_file() else 0.0


def _loss(progress: Progress) -> str:
    return "" if progress.loss is None else f", loss {progress.loss:.3f}"


def _keep(weights: Path, early: Path) -> None:
    """A second name for the weights of the last save, which the next save will replace under the first name."""
    if weights.is_file():
        os.link(weights, early)
