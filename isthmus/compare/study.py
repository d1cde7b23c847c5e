"""A study is a value: a base stage, the arms that differ from it, and what they are judged by."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.compare.blind import blind
from isthmus.config import did_you_mean, replace_at
from isthmus.evaluate.benchmarks import BENCHMARKS, DEFAULT_TASKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT, AlignmentTask
from isthmus.evaluate.task import Task
from isthmus.train.objectives import ITC
from isthmus.train.stage import Stage

TEXT_ONLY = "text-only"
"""The name of the arm that is trained and asked over a blank image."""
JUDGED = 16
"""Of a query's answers in a gallery, how many of the best by comparison are judged again."""
TASKS: Mapping[str, Task | AlignmentTask] = {**BENCHMARKS, **ALIGNMENT}
"""Everything that arms can be asked; `ALIGNMENT` is for those without a language model."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to build or train: a name and what it changes in the base stage, by dotted path.

    `Arm(name="mlp", replace=(("model.connector", MlpConfig()),))`
    """

    name: str
    replace: tuple[tuple[str, Any], ...] = ()
    before: tuple[Stage, ...] = ()
    """Stages trained first, one from the other, with each seed; the arm's own stage starts from the last one's weights.
    They keep their own steps and rates: take them off the arm's own steps for an equal number."""
    rates: tuple[float, ...] = ()
    """Learning rates tried for this arm in place of the study's: an MLP's may not suit a stack of attention layers."""

    def stage(self, base: Stage) -> Stage:
        """The base stage with this arm's changes. Raises ValueError for a path that is no field."""
        for path, value in self.replace:
            base = replace_at(base, path, value)
        return base


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One choice of a factorial study: its levels are arms that every level of every other factor is combined with."""

    name: str
    levels: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms under equal conditions: data order, seeds, steps and shared initial weights are the same for all.

    Give `arms`, or `factors` for a factorial whose main effects are reported. `tune_rates` are tried for every arm on
    `tune_seeds` with `tune_fraction` of the steps; the rate with the lowest validation loss is used on `seeds`.
    `tasks` name entries of `BENCHMARKS`, or of `ALIGNMENT` where the arms have no language model; the mean over the
    tasks in `headline` is what arms are ranked by. `text_only` names the arm that the separately trained text-only
    control copies (None trains none).

    Raises:
        ValueError: arms and factors both or neither, repeated names, unknown tasks, seeds used for both choosing and
            judging, a base stage without validation or with epochs instead of steps; without a language model a
            text-only arm, or an arm that learns no comparison.
    """

    name: str
    base: Stage
    arms: tuple[Arm, ...] = ()
    factors: tuple[Factor, ...] = ()
    seeds: tuple[int, ...] = (1, 2)
    tune_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    tune_seeds: tuple[int, ...] = (101,)
    tune_fraction: float = 0.25
    tasks: tuple[str, ...] = DEFAULT_TASKS
    headline: tuple[str, ...] = ("world/attribute", "world/position", "world/count")
    items_per_task: int = 200
    headline_items: int | None = None
    """Items of every headline task, where that is more than of the others."""
    control_items: int = 100
    """Items a headline task that the shuffled-image control is asked; the mean-image control is asked all of them."""
    watch_items: int = 200
    """Items a headline task asked before the last fifth of training and after it, to see whether an arm still rises."""
    text_only: str | None = None
    margin: float = 0.02
    """A difference below this is not called better, however clear it is."""

    def __post_init__(self) -> None:
        if bool(self.arms) == bool(self.factors):
            raise ValueError(f"Study {self.name!r} needs either `arms` or `factors`, not both and not neither.")
        names = [arm.name for arm in self.every_arm()]
        for name in names:
            if names.count(name) > 1 or name == TEXT_ONLY:
                raise ValueError(f"Study {self.name!r}: the arm name {name!r} is taken; every arm needs its own.")
        if self.text_only is not None and self.text_only not in names:
            raise ValueError(f"Study {self.name!r} has no arm {self.text_only!r}.{did_you_mean(self.text_only, names)}")
        if self.text_only is not None and self.before(self.text_only, seed=0):
            raise ValueError(
                f"Study {self.name!r}: `text_only` copies {self.text_only!r}, whose earlier stages saw pictures. "
                f"Name an arm without `before`."
            )
        self._check_tasks()
        if not self.headline or not set(self.headline) <= set(self.tasks):
            raise ValueError(f"Study {self.name!r}: `headline` {self.headline} must name some of `tasks` {self.tasks}.")
        self._check_training()

    def _check_tasks(self) -> None:
        """The tasks are those of the arms' kind; all have the base's, for their objectives must fit their models."""
        speaking = self.base.model.llm is not None
        if not speaking and self.text_only is not None:
            raise ValueError(
                f"Study {self.name!r} compares images with texts, where chance is known: there is no text-only arm to "
                f"train. Leave out `text_only`."
            )
        for arm in self.every_arm():
            if not speaking and not any(isinstance(one, ITC) for one in arm.stage(self.base).objectives):
                raise ValueError(f"Arm {arm.name!r} learns no comparison to search with: add ITC() to it.")
        known: Mapping[str, object] = BENCHMARKS if speaking else ALIGNMENT
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"Unknown task {task!r}.{did_you_mean(task, TASKS)}")
            if task not in known:
                raise ValueError(
                    f"Study {self.name!r}: {task!r} is asked of models with{'out' if speaking else ''} a language "
                    f"model, but these arms have {'one' if speaking else 'none'}. There are: {', '.join(known)}."
                )
        for task in self.headline:
            if task in BENCHMARKS and BENCHMARKS[task].form != "answer":
                raise ValueError(f"Study {self.name!r}: the headline task {task!r} is not answered with text.")

    def _check_training(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"Study {self.name!r} needs at least one seed and no seed twice, got {self.seeds}.")
        both = set(self.seeds) & set(self.tune_seeds)
        if both:
            raise ValueError(f"Study {self.name!r}: the seeds {sorted(both)} would both choose rates and judge arms.")
        most = max(len(rates) for rates in (self.tune_rates, *(arm.rates for arm in self.every_arm())))
        if not self.tune_rates or (most > 1 and not self.tune_seeds):
            raise ValueError(
                f"Study {self.name!r} needs `tune_rates`, and `tune_seeds` when there is more than one rate."
            )
        if not 0.0 < self.tune_fraction <= 1.0:
            raise ValueError(f"Study {self.name!r}: tune_fraction lies above 0 and up to 1, got {self.tune_fraction}.")
        for arm in self.every_arm():
            stage = arm.stage(self.base)
            if stage.steps is None:
                raise ValueError(
                    f"Arm {arm.name!r} counts epochs; a study compares equal `steps`: set them in the base."
                )
            for earlier in arm.before:
                if earlier.steps is None:
                    raise ValueError(
                        f"Arm {arm.name!r}: the stage {earlier.name!r} before it counts epochs; give it `steps`."
                    )
            if not stage.validation:
                raise ValueError(f"Arm {arm.name!r} has no `validation` data: rates are chosen by validation loss.")

    @property
    def judge(self) -> int | None:
        """None where arms answer with text. Else how many of a query's best answers are judged again: none of them, so
        that comparison alone decides, where not every arm learns to judge."""
        if self.base.model.llm is not None:
            return None
        return JUDGED if all(arm.stage(self.base).passes.match for arm in self.every_arm()) else 0

    def items_of(self, task: str) -> int:
        """How many items of a task every judged run is asked, where the task has as many."""
        if task in self.headline and self.headline_items is not None:
            return self.headline_items
        return self.items_per_task

    def every_arm(self) -> tuple[Arm, ...]:
        """The arms, or every combination of the factors' levels ("mlp, 144 tokens"); without the text-only arm."""
        if self.arms:
            return self.arms
        combined = itertools.product(*(factor.levels for factor in self.factors))
        return tuple(
            Arm(
                name=", ".join(level.name for level in levels),
                replace=sum((level.replace for level in levels), ()),
                before=sum((level.before for level in levels), ()),
                rates=next((level.rates for level in levels if level.rates), ()),
            )
            for levels in combined
        )

    def rates_of(self, arm: str) -> tuple[float, ...]:
        """The learning rates tried for an arm; the text-only arm has those of the arm that it copies."""
        copied = self.text_only if arm == TEXT_ONLY else arm
        return {one.name: one.rates for one in self.every_arm()}.get(copied or "", ()) or self.tune_rates

    def by_level(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Of a factorial: factor -> level -> the arms that have it; empty for a list of arms."""
        combined = list(itertools.product(*(factor.levels for factor in self.factors))) if self.factors else []
        names = [", ".join(level.name for level in levels) for levels in combined]
        return {
            factor.name: {
                level.name: tuple(name for name, levels in zip(names, combined, strict=True) if levels[place] == level)
                for level in factor.levels
            }
            for place, factor in enumerate(self.factors)
        }

    def stages(self) -> dict[str, Stage]:
        """The full-length stage of every arm by name, the text-only arm last."""
        stages = {arm.name: arm.stage(self.base) for arm in self.every_arm()}
        if self.text_only is not None:
            seeing = stages[self.text_only]
            stages[TEXT_ONLY] = dataclasses.replace(
                seeing, data=blind(seeing.data), validation=blind(seeing.validation)
            )
        return stages

    def at(self, arm: str, *, rate: float, seed: int, fraction: float = 1.0) -> Stage:
        """An arm's stage at a learning rate and seed, for this share of its steps.

        It saves at every fifth of its steps. A full-length run is validated as often, a shorter one at its end.
        """
        stage = replaced_rate(self.stages()[arm], rate)
        assert stage.steps is not None
        steps = max(1, math.ceil(fraction * stage.steps))
        fifth = max(1, math.ceil(steps / 5))
        earlier = self.before(arm, seed=seed)
        return dataclasses.replace(
            stage,
            name=f"{self.name}/{arm}",
            start_from=earlier[-1].name if earlier else stage.start_from,
            seed=seed,
            steps=steps,
            log_every=max(1, steps // 50),
            save_every=fifth,
            validate_every=fifth if fraction == 1.0 else 0,
        )

    def before(self, arm: str, *, seed: int) -> tuple[Stage, ...]:
        """The stages that an arm's runs of this seed start from, in their order; empty for most arms."""
        stages: list[Stage] = []
        for stage in {one.name: one.before for one in self.every_arm()}.get(arm, ()):
            start = stages[-1].name if stages else stage.start_from
            stages.append(dataclasses.replace(stage, seed=seed, start_from=start, validate_every=0))
        return tuple(stages)


def replaced_rate(stage: Stage, rate: float) -> Stage:
    """The stage at another peak learning rate; rates of single parts keep their proportion to it."""
    factor = rate / stage.optimizer.peak_lr
    rates = tuple((part, own * factor) for part, own in stage.optimizer.rates)
    return dataclasses.replace(stage, optimizer=dataclasses.replace(stage.optimizer, peak_lr=rate, rates=rates))
