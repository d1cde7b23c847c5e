"""A chain of stages: trained one after another, each from the weights of the one before, into one folder."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isthmus.config import from_json, to_json
from isthmus.runs import STAGE_FILE, Run, goes_on_from
from isthmus.train import checkpoint, sharding
from isthmus.train.loop import train
from isthmus.train.options import AS_IT_IS, RunOptions
from isthmus.train.stage import TYPES as STAGE_TYPES
from isthmus.train.stage import Stage

CHAIN_FILE = "chain.json"


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages in their order, and what the finished ones are asked.

    Raises:
        ValueError: fewer than two stages, or a stage that does not start from the one before or cannot go on from it.
    """

    name: str
    stages: tuple[Stage, ...]
    asked: tuple[str, ...] = ()
    """Names of tasks; every finished stage is asked those that it can answer."""
    items_per_task: int = 600
    """Held-out questions, pictures or pairs for each task, or as many as there are."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < max(2, len(names)):
            raise ValueError(f"The chain {self.name!r} needs two stages or more with different names, got {names}.")
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            if stage.start_from != before.name:
                raise ValueError(
                    f"In the chain {self.name!r}, {stage.name!r} starts from {stage.start_from!r} and not from the "
                    f"stage before it, {before.name!r}. Set its start_from, or the order of the stages."
                )

    def check(self) -> None:
        """Raises ValueError for a stage whose model cannot go on from that of the one before."""
        for number, (before, stage) in enumerate(zip(self.stages, self.stages[1:], strict=False), start=1):
            if not goes_on_from(before.model, stage.model):
                raise ValueError(
                    f"In the chain {self.name!r}, the weights of {before.name!r} do not fit {stage.name!r}: what is "
                    f"set of a model that both share (--stages.{number - 1}.model..., --stages.{number}.model...) must "
                    f"be set in both alike."
                )

    def folders(self, folder: Path) -> tuple[Path, ...]:
        """The run folder of every stage inside the chain's: `1-tiny-contrast`, `2-tiny-stage1`."""
        return tuple(
            folder / f"{number}-{stage.name.split('/')[-1]}" for number, stage in enumerate(self.stages, start=1)
        )


TYPES: dict[str, type] = {**STAGE_TYPES, "Chain": Chain}
"""Every config class that a saved chain may name."""


def train_chain(
    chain: Chain,
    folder: Path,
    *,
    resume: bool = False,
    start: Path | None = None,
    progress: bool = True,
    options: RunOptions = AS_IT_IS,
    main: bool = True,
    on_stage: Callable[[Stage, Run], None] | None = None,
) -> tuple[Run, ...]:
    """Train every stage that is not finished, each from the run before it; the runs in their order.

    A chain that was stopped at any moment and resumed has the weights of an unbroken one. `start` is the run that the
    first stage starts from, where it starts from one. `main` says that this process writes the chain's file. Of
    `options`, `shard` and `pack` are for the stages with a language model. `on_stage` is called with each finished
    stage.

    Raises:
        ValueError: the folder holds another chain, or a chain and not `resume`; `shard` with one process or without
            any language model; what `train` raises.
    """
    chain.check()
    if options.shard:
        sharded = next((stage for stage in chain.stages if stage.model.llm is not None), chain.stages[0])
        sharding.check(sharded, int(os.environ.get("WORLD_SIZE", "1")))
    path = folder / CHAIN_FILE
    if path.is_file():
        if not resume:
            raise ValueError(f"{folder} already holds a chain. Resume it (--resume), or choose another folder.")
        if json.loads(path.read_bytes()) != json.loads(json.dumps(to_json(chain))):
            raise ValueError(f"{folder} holds another chain. Resume it as it was started, or choose another folder.")
    elif (folder / STAGE_FILE).is_file():
        raise ValueError(f"{folder} holds the run of one stage. Choose another folder for the chain.")
    elif main:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_whole(path, json.dumps(to_json(chain), indent=1).encode())
    runs: list[Run] = []
    for stage, place in zip(chain.stages, chain.folders(folder), strict=True):
        begun = (place / STAGE_FILE).is_file()
        fit = options if stage.model.llm is not None else replace(options, shard=False, pack=False)
        run = train(stage, place, resume=begun, start=start, progress=progress, options=fit)
        if on_stage is not None:
            on_stage(stage, run)
        runs.append(run)
        start = place
    return tuple(runs)


def read_chain(folder: Path, types: Mapping[str, type] = TYPES) -> Chain:
    """The chain that a folder was started with.

    Raises:
        ValueError: the folder holds none, or its file cannot be read.
    """
    path = folder / CHAIN_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no chain: it has no {CHAIN_FILE}.")
    try:
        chain = from_json(json.loads(path.read_bytes()), types)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(chain, Chain):
        raise ValueError(f"{path} holds a {type(chain).__name__} where a Chain belongs.")
    return chain
