"""A stage is a value: what learns, from what, for how long. Recipes return one; a variant is `dataclasses.replace`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from isthmus.config import check_choices, from_json
from isthmus.connectors.reading import Passes
from isthmus.data.sources import TYPES as SOURCE_TYPES
from isthmus.data.sources import Source
from isthmus.model import TYPES as MODEL_TYPES
from isthmus.model import Model
from isthmus.runs import Run
from isthmus.train.objectives import OBJECTIVES, NextToken, Objective
from isthmus.train.optimizer import AdamW
from isthmus.train.schedule import Cosine

__all__ = ["TYPES", "AdamW", "Cosine", "NextToken", "Stage", "read_stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training run as data. The resolved stage is saved as JSON in the run folder and reads back equal.

    Raises:
        ValueError: nothing to train or no data, both or neither of `epochs` and `steps`, a number below its least,
            sources of which some fill whole batches and others do not, or an objective that the model cannot give.
    """

    name: str
    """The recipe's name; `start_from` of a later stage finds the run by it."""
    model: Model
    train: tuple[str, ...]
    """Dotted paths of what learns ("connector", "llm.model.layers.3"); everything else is frozen."""
    data: tuple[Source, ...]
    optimizer: AdamW
    start_from: str | None = None
    """A recipe's name or a run folder whose weights this stage starts from."""
    objectives: tuple[Objective, ...] = (NextToken(),)
    validation: tuple[Source, ...] = ()
    schedule: Cosine = field(default_factory=Cosine)
    batch_size: int = 16
    """Samples in one optimizer step, over all processes and micro-batches."""
    micro_batch_size: int | None = None
    """Samples of one process in one forward pass; None takes a process's whole share at once."""
    epochs: float | None = None
    steps: int | None = None
    """Optimizer steps; exactly one of `epochs` and `steps` is given."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 computes under autocast; weights that learn stay as they were loaded."""
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    validate_every: int = 500
    """In optimizer steps; 0 validates at the end alone. Without `validation` nothing is validated."""
    cached_views: int = 1
    """Frozen features kept for each image: 1 the plain view, k > 1 that many fixed crops, 0 encodes at each step."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError(f"Stage {self.name!r} trains nothing: name a part in `train`, such as 'connector'.")
        if not self.data:
            raise ValueError(f"Stage {self.name!r} has no data: give at least one Source in `data`.")
        if not self.objectives:
            raise ValueError(f"Stage {self.name!r} has no objective: give at least one, such as NextToken().")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"Stage {self.name!r} needs exactly one of `epochs` and `steps`, got epochs={self.epochs} and "
                f"steps={self.steps}. Set the other to None."
            )
        if self.steps is not None:
            _positive(self.name, steps=self.steps)
        elif not self.epochs or self.epochs < 0:
            raise ValueError(f"Stage {self.name!r}: `epochs` must be above 0, got {self.epochs}.")
        if self.micro_batch_size is not None:
            _positive(self.name, micro_batch_size=self.micro_batch_size)
        _positive(self.name, batch_size=self.batch_size, log_every=self.log_every, save_every=self.save_every)
        if len({source.whole_batches for source in self.data}) > 1:
            raise ValueError(
                f"Stage {self.name!r}: some sources of `data` fill whole batches and others do not. Set whole_batches "
                f"for all of them or for none."
            )
        for source in self.data:
            self._check_together(source)
        if self.cached_views < 0 or self.validate_every < 0:
            raise ValueError(f"Stage {self.name!r}: `cached_views` and `validate_every` must be 0 or more.")
        check_choices(self)
        names = [objective.name for objective in self.objectives]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"Stage {self.name!r}: several of `objectives` give the loss {', '.join(map(repr, twice))}, of which "
                f"one would be lost. List each once; `weight` makes it count for more."
            )
        for objective in self.objectives:
            objective.check(self.model)

    def _check_together(self, source: Source) -> None:
        """Samples that are to be compared come into one batch, or the stage is refused."""
        together, kind = source.of.together, type(source.of).__name__
        if self.batch_size % together:
            raise ValueError(
                f"Stage {self.name!r}: {kind} gives samples {together} and {together} for one batch, which "
                f"batch_size={self.batch_size} would part. Set one that {together} divides."
            )
        if together > 1 and len(self.data) > 1 and not source.whole_batches:
            raise ValueError(
                f"Stage {self.name!r}: {kind} gives samples {together} and {together} for one batch, which other "
                f"sources would part. Set whole_batches=True for all sources."
            )

    @property
    def passes(self) -> Passes:
        """What the objectives ask for of a connector that learns without a language model."""
        asked = Passes()
        for objective in self.objectives:
            asked = asked.joined(objective.passes())
        return asked

    @property
    def block(self) -> int:
        """Samples of one source that stand together in the data."""
        return self.batch_size if self.data[0].whole_batches else 1

    def num_steps(self, samples_per_epoch: int) -> int:
        """Optimizer steps of this stage over data of this many samples an epoch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * samples_per_epoch / self.batch_size))

    def learns(self, part: str) -> bool:
        """Whether anything of a top-level part ("encoder", "connector", "llm") is named in `train`."""
        return any(path == part or path.startswith(part + ".") for path in self.train)

    def learns_in(self, path: str) -> bool:
        """Whether anything at or below a dotted path ("audio.encoder") is named in `train`, or all that holds it."""
        return self.learns(path) or any(path.startswith(named + ".") for named in self.train)


TYPES: dict[str, type] = {
    **MODEL_TYPES,
    **SOURCE_TYPES,
    **{made.__name__: made for made in (Stage, AdamW, Cosine, *OBJECTIVES.values())},
}
"""Every config class that a saved stage may name."""


def read_stage(run: Run, types: Mapping[str, type] = TYPES) -> Stage:
    """The stage of a run folder, equal to the one it was started with.

    Raises:
        ValueError: the file names something that is not in `types`, or holds no stage.
    """
    stage = from_json(run.stage_json["stage"], types)
    if not isinstance(stage, Stage):
        raise ValueError(f"{run.folder} holds a {type(stage).__name__} where a Stage belongs.")
    return stage


def _positive(stage: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"Stage {stage!r}: `{name}` must be 1 or more, got {number}.")
