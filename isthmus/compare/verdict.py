"""From results to words: which arm is better, by how much, and what cannot be said at this budget.

Rules. Arms are compared by the paired difference over seeds. An interval (95%, Student) that holds zero, or a p-value
that Holm's correction over all pairs of arms lifts above 0.05, is "not separable at this budget". A clear difference
below the study's margin is "behind by less than the margin". An arm whose accuracy still rose by a point or more over
the last fifth of its training is "not converged", and never called worse.
"""

import itertools
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from isthmus.compare.results import Results
from isthmus.compare.significance import Interval, holm, interval, paired

RISING = 0.01
"""A rise in accuracy over the last fifth of training from which an arm is not converged."""
FALLING_NATS = 0.02
"""The fall in validation loss over the last fifth that stands in for it where no accuracy was watched."""

Word = Literal["better", "worse", "not separable", "within the margin", "not converged"]


@dataclass(frozen=True, kw_only=True)
class ArmVerdict:
    """One arm: its headline accuracy over seeds, and whether it had stopped rising."""

    arm: str
    accuracy: Interval
    converged: bool
    rise: str
    """What the last fifth of training brought, in words."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`left` against `right` on the headline. `word` says what `left` is."""

    left: str
    right: str
    difference: Interval
    p_holm: float
    word: Word


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A factorial's main effect: one level against another, averaged over all other factors, paired by seed."""

    factor: str
    left: str
    right: str
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The whole judgement; `lines` and `caveats` are sentences for people."""

    arms: tuple[ArmVerdict, ...]
    """Best first."""
    comparisons: tuple[Comparison, ...]
    effects: tuple[Effect, ...]
    lines: tuple[str, ...]
    caveats: tuple[str, ...]


def judge_arm(results: Results, arm: str) -> ArmVerdict:
    """An arm's headline accuracy, and whether its last fifth still rose (watched accuracy, else validation loss)."""
    finals = list(results.finals(arm).values())
    accuracy = interval(
        list(results.accuracy(arm, results.headline).values()), resolution=results.resolution(results.headline)
    )
    watched = [job.watched for job in finals if job.watched is not None]
    if watched:
        rise = fmean(after - before for before, after in watched)
        return ArmVerdict(
            arm=arm, accuracy=accuracy, converged=rise < RISING, rise=f"{100 * rise:+.1f} points of accuracy"
        )
    falls = [fall for job in finals if (fall := _fall(job.validation_curve)) is not None]
    if falls:
        fall = fmean(falls)
        text = f"{-fall:+.3f} nats of validation loss"
        return ArmVerdict(arm=arm, accuracy=accuracy, converged=fall < FALLING_NATS, rise=text)
    return ArmVerdict(arm=arm, accuracy=accuracy, converged=True, rise="not watched")


def _fall(curve: tuple[tuple[int, float], ...]) -> float | None:
    """How far the loss fell from four fifths of the steps to the end."""
    if len(curve) < 2:
        return None
    last_step, last_loss = curve[-1]
    before = [loss for step, loss in curve if step <= 0.8 * last_step]
    return before[-1] - last_loss if before else None


def compare_arms(results: Results, verdicts: dict[str, ArmVerdict]) -> tuple[Comparison, ...]:
    """Every pair of arms, Holm-adjusted together; the better mean stands left."""
    pairs: dict[tuple[str, str], Interval] = {}
    for one, other in itertools.combinations(verdicts, 2):
        left, right = sorted((one, other), key=lambda arm: -verdicts[arm].accuracy.mean)
        high, low = (results.accuracy(arm, results.headline) for arm in (left, right))
        if set(high) & set(low):
            pairs[left, right] = paired(high, low, resolution=results.resolution(results.headline))
    adjusted = holm({pair: difference.p for pair, difference in pairs.items()})
    found = []
    for (left, right), difference in pairs.items():
        clear = difference.excludes_zero and adjusted[left, right] < 0.05
        word: Word = "better"
        if not clear:
            word = "not separable"
        elif abs(difference.mean) < results.margin:
            word = "within the margin"
        elif not verdicts[right].converged:
            word = "not converged"
        found.append(Comparison(left=left, right=right, difference=difference, p_holm=adjusted[left, right], word=word))
    return tuple(found)


def main_effects(results: Results) -> tuple[Effect, ...]:
    """For every factor, each pair of its levels over the mean of all arms that have the level."""
    effects = []
    for factor, levels in results.factors.items():
        means: dict[str, dict[int, float]] = {}
        for level, arms in levels.items():
            by_arm = [results.accuracy(arm, results.headline) for arm in arms]
            shared = set.intersection(*(set(values) for values in by_arm))
            means[level] = {seed: fmean(values[seed] for values in by_arm) for seed in sorted(shared)}
        for left, right in itertools.combinations(means, 2):
            if set(means[left]) & set(means[right]):
                difference = paired(means[left], means[right], resolution=results.resolution(results.headline))
                effects.append(Effect(factor=factor, left=left, right=right, difference=difference))
    return tuple(effects)


def blind_gap(results: Results, arm: str, tasks: tuple[str, ...]) -> tuple[str, Interval] | None:
    """An arm's lead over the higher of its blind controls: its name, and the paired difference over seeds.

    The blind controls are the same model fed the mean image's tokens, and the separately trained text-only arm.
    """
    seeing = results.accuracy(arm, tasks)
    blind = {"its own answers to the mean image": results.accuracy(arm, tasks, "mean-image")}
    if results.blind_arm is not None:
        blind["the text-only arm"] = results.accuracy(results.blind_arm, tasks, "text-only")
    usable = {name: values for name, values in blind.items() if set(values) & set(seeing)}
    if not usable:
        return None
    highest = max(usable, key=lambda name: fmean(usable[name].values()))
    return highest, paired(seeing, usable[highest], resolution=results.resolution(tasks))


def over_levels(results: Results, arm: str, tasks: tuple[str, ...]) -> Interval | None:
    """An arm's lead over what can be had on these tasks without looking; None where it was not asked them."""
    values = results.accuracy(arm, tasks)
    if not values:
        return None
    level = fmean(results.task(task).levels.highest for task in tasks)
    return paired(values, dict.fromkeys(values, level), resolution=results.resolution(tasks))


def points(value: float, sign: bool = False) -> str:
    """A difference of accuracies in points: `+3.2`."""
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def span(difference: Interval) -> str:
    """An interval in words; one seed alone has none."""
    if math.isinf(difference.low):
        return "one seed, so no interval"
    return f"95% interval {points(difference.low, True)} to {points(difference.high, True)}"
