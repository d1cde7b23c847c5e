"""The verdict in sentences, with what must be said beside it."""

from collections.abc import Sequence
from statistics import fmean

from isthmus.compare.results import Results
from isthmus.compare.verdict import (
    ArmVerdict,
    Comparison,
    Effect,
    Verdict,
    blind_gap,
    compare_arms,
    judge_arm,
    main_effects,
    over_levels,
    points,
    span,
)

SATURATED = 0.98
CLEAR_OF_BLIND = 0.10


def judge(results: Results) -> Verdict:
    """The verdict of a study. Raises ValueError when no arm has finished."""
    verdicts = {arm: judge_arm(results, arm) for arm in results.arms if results.accuracy(arm, results.headline)}
    if not verdicts:
        raise ValueError(f"Study {results.name!r} has no finished arm to judge. {' '.join(results.failures)}".strip())
    ranked = tuple(sorted(verdicts.values(), key=lambda verdict: -verdict.accuracy.mean))
    comparisons = compare_arms(results, verdicts)
    effects = main_effects(results)
    return Verdict(
        arms=ranked,
        comparisons=comparisons,
        effects=effects,
        lines=(
            *_leader(results, ranked, comparisons),
            *_sight(results, ranked[0].arm),
            *_others(ranked, comparisons),
            *_unseeing(results, [verdict.arm for verdict in ranked[1:]]),
            *_real(results, ranked[0].arm),
            *(_effect(effect, results.margin) for effect in effects),
        ),
        caveats=_caveats(results, ranked),
    )


def headline_words(results: Results) -> str:
    """What the headline measures: "attribute, position and count"; without a language model the tasks' whole names."""
    return _joined([name if results.aligned else name.rsplit("/", 1)[-1] for name in results.headline])


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _against(comparisons: Sequence[Comparison], left: str) -> dict[str, Comparison]:
    return {comparison.right: comparison for comparison in comparisons if comparison.left == left}


def _leader(results: Results, ranked: Sequence[ArmVerdict], comparisons: Sequence[Comparison]) -> list[str]:
    best = ranked[0]
    count = sum(results.task(task).count for task in results.headline)
    share, words, asked = f"{points(best.accuracy.mean)}%", headline_words(results), "questions"
    right = f"answers {share} of {words} questions correctly"
    if results.aligned:
        right, asked = f"finds what belongs together in {share} of {words}", "queries"
    seeds = f"{best.accuracy.count} seed{'s' if best.accuracy.count > 1 else ''}"
    lead = f"{best.arm} {right} ({count:,} held-out {asked}, {seeds})"
    against = _against(comparisons, best.arm)
    if not against:
        return [f"{lead}."]
    said_of = {arm: comparison.word for arm, comparison in against.items()}
    if all(word == "better" for word in said_of.values()):
        return [f"{lead}, more than every other arm, each by a clear margin."]
    if all(word == "not separable" for word in said_of.values()):
        return [f"{lead}, the highest mean, but no arm is separable from it at this budget."]
    said = []
    for word, phrase in (
        ("not separable", "not separable from it at this budget"),
        ("within the margin", "behind it by less than the margin"),
        ("not converged", "not converged, so not judged"),
    ):
        arms = [verdict.arm for verdict in ranked if said_of.get(verdict.arm) == word]
        if arms:
            said.append(f"{_joined(arms)} {'is' if len(arms) == 1 else 'are'} {phrase}")
    return [f"{lead}, the highest mean; {'; '.join(said)}."]


def _sight(results: Results, best: str) -> list[str]:
    over = over_levels(results, best, results.headline) if results.aligned else None
    if over is not None:
        where = f"{points(over.mean, True)} points against a blind guess ({span(over)})"
        return [f"It is {'above chance' if over.low > 0.0 else 'not shown to be above chance'}: {where}."]
    gap = blind_gap(results, best, results.headline)
    if gap is None:
        return []
    control, difference = gap
    where = f"{points(difference.mean, True)} points against {control}, the higher blind control ({span(difference)})"
    if difference.excludes_zero and difference.mean > 0:
        return [f"It sees: {where}."]
    return [f"It is not shown that it sees: {where}."]


def _others(ranked: Sequence[ArmVerdict], comparisons: Sequence[Comparison]) -> list[str]:
    best = ranked[0].arm
    lines = []
    for verdict in ranked[1:]:
        comparison = _against(comparisons, best).get(verdict.arm)
        if comparison is None:
            lines.append(f"{verdict.arm}: {points(verdict.accuracy.mean)}%; no seed in common with {best}.")
            continue
        difference = comparison.difference.flipped()
        behind = f"{points(difference.mean, True)} points against {best}, {span(difference)}"
        said = {
            "better": "worse than the best arm",
            "worse": "better than the best arm",
            "not separable": "not separable at this budget",
            "within the margin": "behind by less than the margin",
            "not converged": f"not converged ({verdict.rise} over the last fifth of training), so not judged",
        }[comparison.word]
        if comparison.word == "not separable" and difference.excludes_zero:
            said += f" once all pairs are counted (p {comparison.p_holm:.2f} after Holm)"
        lines.append(f"{verdict.arm}: {points(verdict.accuracy.mean)}%, {said} ({behind}).")
    if not ranked[0].converged:
        lines.insert(
            0, f"{best} itself is not converged ({ranked[0].rise} over the last fifth): more steps would help."
        )
    return lines


def _unseeing(results: Results, arms: Sequence[str]) -> list[str]:
    """The arms besides the best whose lead over the blind controls is not sure."""
    gaps = {arm: gap[1] for arm in arms if (gap := blind_gap(results, arm, results.headline)) is not None}
    unsure = {arm: gap.mean for arm, gap in gaps.items() if gap.low <= 0.0}
    named = {
        "Not shown to see": [arm for arm, lead in unsure.items() if lead < results.margin],
        "Ahead of the blind controls, but too unevenly over the seeds to be sure": [
            arm for arm, lead in unsure.items() if lead >= results.margin
        ],
    }
    leads = {arm: f"{arm} ({points(lead, True)})" for arm, lead in unsure.items()}
    return [
        f"{said} (points over the higher control): {_joined([leads[arm] for arm in found])}."
        for said, found in named.items()
        if found
    ]


def passed_real_tasks(results: Results, arm: str) -> list[str]:
    """Real-image tasks on which the arm's interval lies above chance, the majority class and question-only."""
    passed = []
    for task in results.tasks:
        over = over_levels(results, arm, (task.name,)) if task.kind == "real images" else None
        if over is not None and over.low > 0.0:
            passed.append(task.title)
    return passed


def _real(results: Results, best: str) -> list[str]:
    real = [task for task in results.tasks if task.kind == "real images"]
    if not real:
        return []
    passed = passed_real_tasks(results, best)
    levels = "chance" if results.aligned else "chance, the majority class and question-only"
    if not passed:
        return [f"On real images it is not clearly above {levels} on any task."]
    return [
        f"On real images it is clearly above {levels} on {len(passed)} of {len(real)} "
        f"task{'s' if len(real) > 1 else ''}: {_joined(passed)}."
    ]


def _effect(effect: Effect, margin: float) -> str:
    by = f"{points(effect.difference.mean, True)} points, {span(effect.difference)}"
    if not effect.difference.excludes_zero:
        return f"{effect.factor}: {effect.left} and {effect.right} are not separable at this budget ({by})."
    size = "" if abs(effect.difference.mean) >= margin else ", less than the margin"
    return f"{effect.factor}: {effect.left} against {effect.right} is {by}{size}."


def _caveats(results: Results, ranked: Sequence[ArmVerdict]) -> tuple[str, ...]:
    caveats = list(results.failures)
    seeds = max(verdict.accuracy.count for verdict in ranked)
    if seeds < 5:
        few = "is 1 seed: nothing can be told apart" if seeds == 1 else f"are {seeds} seeds: intervals are wide"
        caveats.append(f"There {few}. Differences of a few points need five seeds or more.")
    still = [verdict.arm for verdict in ranked if not verdict.converged]
    if still:
        caveats.append(f"Not converged: {_joined(still)}. Their accuracy holds for this number of steps only.")
    lost = [arm for arm in results.arms if results.alike(arm)]
    if lost:
        caveats.append(
            f"At every learning rate tried, the visual tokens of an image became alike: {_joined(lost)}. Lower rates "
            "or a stage before might serve better."
        )
    best = ranked[0]
    if sum(verdict.accuracy.mean >= SATURATED for verdict in ranked) > 1:
        caveats.append("Two or more arms answer nearly everything: these questions are too easy to separate them.")
    gap = blind_gap(results, best.arm, results.headline)
    if results.aligned:
        caveats.append(
            "There is no blind control without a language model, only chance. In a gallery nothing else can be had "
            "without looking; where two descriptions are told apart, a habit of words could pass chance as well."
        )
    elif gap is None:
        caveats.append("No blind control was run, so it is not shown that any answer comes from the picture.")
    elif gap[1].mean < CLEAR_OF_BLIND:
        caveats.append("The best arm is less than 10 points above its blind control: compare no connectors by it.")
    shuffled = results.accuracy(best.arm, results.headline, "shuffled")
    level = fmean(results.task(task).levels.highest for task in results.headline)
    if shuffled and fmean(shuffled.values()) > level + 0.05:
        caveats.append(
            f"With other items' images {best.arm} still answers {points(fmean(shuffled.values()))}%, above the "
            f"{points(level)}% to be had without looking: the questions give something away."
        )
    caveats.append(
        "Each arm's learning rate is the best of those tried, on other seeds and shorter runs; a longer search may "
        "alter the order. What is found holds for these models, data and number of steps."
    )
    return tuple(caveats)
