"""Before the first step: the run folder, the model with its start, what learns, the optimizer, the data."""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from isthmus import __version__
from isthmus.config import to_json
from isthmus.data.collate import Batch
from isthmus.llms.causal import CausalLanguageModel
from isthmus.model import Model, VisionLanguageModel
from isthmus.runs import (
    ALWAYS_SAVED,
    FINISHED_FILE,
    STAGE_FILE,
    WEIGHTS_FILE,
    Run,
    can_start,
    find_run,
    load_trained,
    saveable,
)
from isthmus.train import checkpoint, freeze, recompute, sharding
from isthmus.train.feed import Feed
from isthmus.train.objectives.shared import Part, Shared
from isthmus.train.objectives.whole import read_vectors
from isthmus.train.optimizer import load_optimizer_tensors, optimizer_tensors
from isthmus.train.options import AS_IT_IS, RunOptions
from isthmus.train.progress import ProgressDisplay
from isthmus.train.randomness import seed_torch
from isthmus.train.stage import Stage

MOST_NAMED = 5
"""Of the samples that the model refuses, so many are named."""


class Losses(nn.Module):
    """The model and its objectives as one module, so that every process goes through one forward call."""

    def __init__(self, model: VisionLanguageModel, stage: Stage) -> None:
        super().__init__()
        self.model = model
        self.objectives = stage.objectives

    def counts(self, batch: Batch) -> dict[str, int]:
        """Items that each named loss sums over."""
        return {name: count for objective in self.objectives for name, count in objective.counts(batch).items()}

    def weights(self, names: list[str], batch: Batch) -> dict[str, float]:
        """The weight of each named loss."""
        found = {name: objective.weight for objective in self.objectives for name in objective.counts(batch)}
        return {name: found[name] for name in names}

    def forward(self, batch: Batch, part: Part | None = None) -> dict[str, Tensor]:
        """Every named loss as a sum over this batch's items; `part` is its share of a batch compared as a whole."""
        shared = Shared(self.model, batch, part)
        for one in self.objectives:
            one.prepare(shared)
        if part is not None:
            read_vectors(shared, self.objectives)
        return {name: loss for one in self.objectives for name, loss in one.losses(shared).items()}


@dataclasses.dataclass(kw_only=True)
class Setup:
    """Everything a run needs, ready for its next step. `module` is `losses`, wrapped for several processes.

    `sharded`: the language model's layers are cut over the processes (`sharding.py`).
    """

    stage: Stage
    accelerator: Accelerator
    model: VisionLanguageModel
    losses: Losses
    module: nn.Module
    optimizer: torch.optim.Optimizer
    feed: Feed
    report: freeze.FreezeReport
    kept: frozenset[str]
    saved: checkpoint.Saved | None
    sharded: bool

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        return self.feed.num_steps

    def what_learns(self) -> list[str]:
        """The freeze report as text; an encoder whose features are read in its place stands first."""
        lines = self.report.lines()
        if self.model.encoder is None:
            lines.insert(0, f"{'encoder':<12} {self.stage.model.encoder.parameters():>13,} parameters          frozen")
        return lines

    def kept_tensors(self) -> dict[str, Tensor]:
        """What a save holds of the model: what learns, what it started from, connector and arrangement.

        Nothing but on the main process; all processes must call it together.
        """
        kept = {name: tensor for name, tensor in saveable(self.model).items() if name in self.kept}
        return sharding.gathered(kept, keep=self.accelerator.is_main_process)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """What a save holds of the optimizer; all processes must call it together, and the main one gets it."""
        return sharding.gathered(optimizer_tensors(self.optimizer), keep=self.accelerator.is_main_process)


def open_folder(stage: Stage, folder: Path, *, resume: bool, start: Path | None, accelerator: Accelerator) -> bool:
    """Make the run folder, or check that it is this stage's; says whether anything is left to train.

    Raises:
        ValueError: it holds another stage, or a run and not `resume`; or the start does not fit.
    """
    if accelerator.is_main_process:
        _open_folder(stage, folder, resume=resume, start=start)
    accelerator.wait_for_everyone()
    return not (folder / FINISHED_FILE).is_file()


def _open_folder(stage: Stage, folder: Path, *, resume: bool, start: Path | None) -> None:
    path = folder / STAGE_FILE
    if folder.is_file():
        raise ValueError(f"{folder} is a file: a run needs a folder of its own. Give another with --out.")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        begun = {
            "isthmus": __version__,
            "commit": _commit(),
            "model_fingerprint": stage.model.fingerprint(),
            "encoder": stage.model.encoder.fingerprint(),
            "llm": None if stage.model.llm is None else stage.model.llm.fingerprint(),
            "start": _start(stage, start),
            "stage": to_json(stage),
        }
        checkpoint.write_whole(path, json.dumps(begun, indent=1).encode())
        return
    if not resume:
        raise ValueError(f"{folder} already holds a run. Resume it (--resume), or choose another folder.")
    known = Run(folder).stage_json
    wanted = json.loads(json.dumps(to_json(stage)))
    other = sorted(key for key in {*wanted, *known["stage"]} if wanted.get(key) != known["stage"].get(key))
    if other:
        raise ValueError(
            f"{folder} holds another stage: it differs in {', '.join(other)}. "
            f"Resume with the stage it was started with, or choose another folder."
        )
    if known["model_fingerprint"] != stage.model.fingerprint():
        raise ValueError(f"The frozen weights of {folder} have changed since it was started. Bring them back.")
    checkpoint.remove_leftovers(folder)


def clear_folder(folder: Path) -> None:
    """Take back what `open_folder` made for a stage that was refused then: the mended one may have the folder."""
    (folder / STAGE_FILE).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _start(stage: Stage, start: Path | None) -> dict[str, str] | None:
    """The run to start from, checked."""
    if stage.start_from is None:
        if start is not None:
            raise ValueError(
                f"Stage {stage.name!r} starts from nothing, but {start} was given. Name the recipe that it "
                f"starts from in `start_from` (--start-from)."
            )
        return None
    if start is not None:
        run = Run(start)
    elif (Path(stage.start_from) / STAGE_FILE).is_file():
        run = Run(stage.start_from)
    else:
        run = find_run(stage.start_from, stage.model)
    check_fit(run, stage.model)
    path = run.folder / WEIGHTS_FILE
    if not path.is_file():
        raise ValueError(f"{run.folder} has no {WEIGHTS_FILE} to start from: nothing was saved in it yet.")
    return {"folder": str(run.folder.resolve()), "weights": _hash(path)}


def check_fit(run: Run, model: Model) -> None:
    """Raises ValueError, naming the parts, when a run's weights are not those of this model."""
    if can_start(run, model):
        return
    theirs, ours = run.stage_json["stage"]["model"], json.loads(json.dumps(to_json(model)))
    parts = [part for part in ("connector", "arrange") if theirs.get(part) != ours[part]]
    parts += [part for part in ("encoder", "llm") if run.stage_json.get(part) != _fingerprint(model, part)]
    raise ValueError(
        f"{run.folder} was trained with another {' and '.join(parts) or 'model'}, so its weights do not fit. "
        f"Make these parts equal, or start from another run."
    )


def _fingerprint(model: Model, part: str) -> str | None:
    config = getattr(model, part)
    return None if config is None else str(config.fingerprint())


def set_up(
    stage: Stage, folder: Path, *, accelerator: Accelerator, display: ProgressDisplay, options: RunOptions = AS_IT_IS
) -> Setup:
    """Build the model, load start and save, freeze, shard it and pack its rows if asked, warm the feature cache.

    Raises:
        ValueError: `train` names nothing or leaves out an arrangement's new weights, weights do not fit, no usable
            data, samples that the model refuses, or rows that cannot be packed.
    """
    start = _read_start(folder)
    model = build_model(stage, tuned=start is not None and any(name.startswith("encoder.") for name in start[1]))
    kept = set() if start is None else _load_start(model, *start)
    if options.pack:
        pack_rows(model)
    freeze.apply(model, stage.train)
    freeze.check_fresh(model, stage.train, kept)
    recompute.apply(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept |= learning | {name for name in saveable(model) if name.startswith(ALWAYS_SAVED)}
    kept |= {name for name, _ in model.named_buffers() if name in saveable(model) and stage.learns(name.split(".")[0])}
    saved = checkpoint.latest(folder)
    if saved is not None:
        _load_save(model, saved, kept)
    if options.shard:
        sharding.apply(model, accelerator.device)
    model.to(accelerator.device)
    optimizer = stage.optimizer.build(model.named_parameters())
    sharding.part_groups(optimizer)
    if saved is not None:
        own = sharding.own_parts(saved.optimizer(), dict(model.named_parameters()))
        load_optimizer_tensors(optimizer, own)
    losses = Losses(model, stage)
    feed = _ready_feed(stage, model, accelerator, display, 0 if saved is None else saved.step)
    return Setup(
        stage=stage,
        accelerator=accelerator,
        model=model,
        losses=losses,
        module=losses if options.shard else accelerator.prepare_model(losses),
        optimizer=optimizer,
        feed=feed,
        report=freeze.report(model, optimizer),
        kept=frozenset(kept),
        saved=saved,
        sharded=options.shard,
    )


def build_model(stage: Stage, *, tuned: bool = False) -> VisionLanguageModel:
    """The model with fresh parts drawn from the stage's seed, whether or not the encoder is loaded.

    It is where the encoder learns, and where an earlier stage has tuned it: features are then not those of its name.
    """
    seed_torch(stage.seed, "fresh weights")
    model = VisionLanguageModel(stage.model, with_encoder=False)
    if tuned or stage.learns("encoder"):
        model.encoder = stage.model.encoder.build().requires_grad_(False)
    for name, branch in stage.model.branches.items():
        if stage.learns_in(f"{name}.encoder"):
            model.branches[name].encoder = branch.encoder.build().requires_grad_(False)
    return model


def _ready_feed(
    stage: Stage, model: VisionLanguageModel, accelerator: Accelerator, display: ProgressDisplay, first_step: int
) -> Feed:
    """The feed of this process, its samples looked at and its features kept."""
    rank, num_ranks = accelerator.process_index, accelerator.num_processes
    feed = Feed(stage, model, device=accelerator.device, rank=rank, num_ranks=num_ranks)
    reasons = gather_object(feed.unfit(display, first_step))
    if reasons:
        named = "\n  ".join([*reasons[:MOST_NAMED], *(["..."] if len(reasons) > MOST_NAMED else [])])
        raise ValueError(
            f"{len(reasons)} of the samples that this run would read do not fit its model:\n  {named}\n"
            f"Mend them, or leave such samples out with unfit='skip' of their source (--data.0.unfit skip)."
        )
    feed.warm(display, first_step)
    accelerator.wait_for_everyone()
    return feed


def pack_rows(model: VisionLanguageModel) -> None:
    """Let the language model read the rows of a batch packed.

    Raises:
        ValueError: it is not causal, something is added to its layers by row, or its attention does not part rows.
    """
    config = model.config
    parts = [(config.connector, config.arrange), *((one.connector, one.arrange) for one in config.branches.values())]
    if any(connector.enters_layers or arrange.added_before() for connector, arrange in parts):
        raise ValueError(
            f"{type(config.connector).__name__} and {type(config.arrange).__name__} add to the layers of the language "
            f"model row by row, which packed rows have lost. Leave out packing."
        )
    if config.llm is None or not isinstance(model.llm, CausalLanguageModel):
        raise ValueError("Packing is for a causal language model, which this stage has not. Leave it out.")
    model.llm.pack_rows()


def _read_start(folder: Path) -> tuple[Run, dict[str, Tensor]] | None:
    """The run that this one starts from, and its weights."""
    start = Run(folder).stage_json["start"]
    if start is None:
        return None
    run = Run(start["folder"])
    if _hash(run.folder / WEIGHTS_FILE) != start["weights"]:
        raise ValueError(f"The weights of {run.folder} have changed since {folder} started from them. Start a new run.")
    return run, run.weights()


def _load_start(model: VisionLanguageModel, run: Run, weights: dict[str, Tensor]) -> set[str]:
    theirs, ours = run.model_config, model.config
    fresh: tuple[str, ...] = () if ours.arrange.continues(theirs.arrange) else ("arrange.",)
    weights = _moved(weights, "connector.", lambda name: ours.connector.place_of(name, theirs.connector))
    weights = _moved(weights, "arrange.", lambda name: ours.arrange.place_of(name, theirs.arrange))
    goes_on = theirs.llm is None and ours.llm is not None
    if goes_on or (ours.connector != theirs.connector and ours.connector.continues(theirs.connector)):
        places = saveable(model)
        weights = {name: tensor for name, tensor in weights.items() if name in places}
        started = tuple(name for name in places if name.startswith("connector.") and name not in weights)
        fresh = (*fresh, *started, *(("arrange.",) if goes_on else ()))
    if not theirs.branches:
        fresh = (*fresh, *(f"{name}." for name in model.branches))
    return set(
        load_trained(model, weights, source=str(run.folder), with_encoder=model.encoder is not None, fresh=fresh)
    )


def _moved(weights: dict[str, Tensor], part: str, place: Callable[[str], str]) -> dict[str, Tensor]:
    """A part's weights under the names that they have inside another's."""
    return {
        part + place(name.removeprefix(part)) if name.startswith(part) else name: weight
        for name, weight in weights.items()
    }


def _load_save(model: VisionLanguageModel, saved: checkpoint.Saved, kept: set[str]) -> None:
    names = load_trained(model, saved.weights(), source=str(saved.folder))
    if names != kept:
        raise ValueError(f"{saved.folder} does not hold what this stage trains: {sorted(names ^ kept)[:4]}.")


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _commit() -> str | None:
    """The commit of the package's own checkout, or None where it was installed without one."""
    try:
        place = Path(__file__).parent
        said = subprocess.run(
            ["git", "log", "-1", "--format=%H", "--", "."], cwd=place, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
