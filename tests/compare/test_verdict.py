"""The rules of the verdict, each by a study made to meet it."""

from dataclasses import replace

import pytest
from fake_study import HEADLINE, fake_results

from isthmus.compare.judge import judge, passed_real_tasks
from isthmus.compare.report import rates_table
from isthmus.compare.results import JobResult, Results
from isthmus.compare.significance import paired
from isthmus.compare.verdict import FALLING_NATS, blind_gap, compare_arms, judge_arm


def with_arms(levels: dict[str, list[float]], **changes: object) -> Results:
    """Arms with these headline accuracies by seed, and nothing else."""
    jobs = tuple(
        JobResult(
            job=f"{arm}-{seed}", kind="final", arm=arm, seed=seed, scores={"none": dict.fromkeys(HEADLINE, value)}
        )
        for arm, values in levels.items()
        for seed, value in enumerate(values)
    )  # fmt: skip
    base = fake_results()
    return replace(base, arms=tuple(levels), blind_arm=None, jobs=jobs, costs={}, **changes)  # type: ignore[arg-type]


def words(results: Results) -> dict[tuple[str, str], str]:
    judged = {arm: judge_arm(results, arm) for arm in results.arms}
    return {(pair.left, pair.right): pair.word for pair in compare_arms(results, judged)}


def test_a_clear_difference_is_better() -> None:
    assert words(with_arms({"low": [0.5, 0.51, 0.49], "high": [0.7, 0.72, 0.68]})) == {("high", "low"): "better"}


def test_an_interval_that_holds_zero_is_not_separable() -> None:
    results = with_arms({"one": [0.5, 0.6, 0.7], "two": [0.7, 0.5, 0.7]})
    assert words(results) == {("two", "one"): "not separable"}
    assert "no arm is separable from it at this budget" in judge(results).lines[0]


def test_a_clear_but_small_difference_is_within_the_margin() -> None:
    assert words(with_arms({"one": [0.50, 0.51, 0.52], "two": [0.51, 0.52, 0.53]})) == {
        ("two", "one"): "within the margin"
    }


def test_holm_takes_back_what_many_pairs_would_find_by_chance() -> None:
    pair = {"a": [0.50, 0.52, 0.51], "b": [0.53, 0.56, 0.57]}
    assert paired(dict(enumerate(pair["b"])), dict(enumerate(pair["a"]))).excludes_zero
    assert words(with_arms(pair)) == {("b", "a"): "better"}
    crowd = {f"x{k}": [0.5 + 0.003 * k, 0.51 - 0.002 * k, 0.50] for k in range(4)}
    crowded = with_arms({**pair, **crowd})
    assert words(crowded)["b", "a"] == "not separable"
    assert any(line.startswith("a: ") and "once all pairs are counted (p 0." in line for line in judge(crowded).lines)


def test_arms_that_may_as_well_be_blind_are_named() -> None:
    results = fake_results()
    seeing = [line for line in judge(results).lines if line.startswith("Not shown to see")]
    assert seeing == []
    jobs = tuple(
        replace(job, scores={"none": dict.fromkeys(HEADLINE, 0.2), "mean-image": dict.fromkeys(HEADLINE, 0.2)})
        if job.arm == "q-former" and job.kind == "final"
        else job
        for job in results.jobs
    )
    said = [line for line in judge(replace(results, jobs=jobs)).lines if line.startswith("Not shown to see")]
    assert len(said) == 1
    assert said[0] == "Not shown to see (points over the higher control): q-former (+0.0)."


def test_an_arm_that_leads_unevenly_is_not_called_blind() -> None:
    arms = {"best": [0.90, 0.91], "uneven": [0.25, 0.80], "blind": [0.21, 0.20]}
    results = with_arms(arms)
    jobs = [replace(job, scores=job.scores | {"mean-image": dict.fromkeys(HEADLINE, 0.2)}) for job in results.jobs]
    lines = judge(replace(results, jobs=tuple(jobs))).lines
    told = [line for line in lines if "over the higher control" in line]
    assert [line.split(" (points")[0] for line in told] == [
        "Not shown to see",
        "Ahead of the blind controls, but too unevenly over the seeds to be sure",
    ]
    assert told[0].endswith("blind (+0.5).")
    assert told[1].endswith("uneven (+32.5).")


def test_one_seed_separates_nothing() -> None:
    results = with_arms({"one": [0.1], "two": [0.9]})
    assert words(results) == {("two", "one"): "not separable"}
    assert any("1 seed" in caveat for caveat in judge(results).caveats)


def test_an_arm_that_still_rises_is_never_worse() -> None:
    results = fake_results()
    verdict = judge(results)
    assert [judged.arm for judged in verdict.arms if not judged.converged] == ["q-former"]
    against = {pair.right: pair.word for pair in verdict.comparisons if pair.left == "mlp"}
    assert against["q-former"] == "not converged"
    text = " ".join(verdict.lines)
    assert "q-former: " in text
    assert "not converged (+3.0 points of accuracy over the last fifth of training), so not judged" in text
    assert "worse" not in text.split("q-former: ")[1]


@pytest.mark.parametrize(("fall", "converged"), [(FALLING_NATS + 0.001, False), (FALLING_NATS - 0.001, True)])
def test_without_watched_accuracy_the_loss_decides(fall: float, converged: bool) -> None:
    results = with_arms({"one": [0.5, 0.5]})
    curve = ((20, 2.0), (80, 1.0), (100, 1.0 - fall))
    results = replace(results, jobs=tuple(replace(job, validation_curve=curve) for job in results.jobs))
    judged = judge_arm(results, "one")
    assert judged.converged is converged
    assert "nats of validation loss" in judged.rise


def test_the_higher_blind_control_counts() -> None:
    results = fake_results()
    found = blind_gap(results, "mlp", HEADLINE)
    assert found is not None
    control, difference = found
    assert control == "the text-only arm"
    assert 0.45 < difference.mean < 0.55
    assert blind_gap(with_arms({"one": [0.5]}), "one", HEADLINE) is None


def test_a_real_task_is_passed_only_above_all_levels() -> None:
    results = fake_results()
    assert passed_real_tasks(results, "mlp") == ["Kind of figure", "Subject of the book"]
    assert passed_real_tasks(results, "q-former") == []


def test_an_arm_that_does_not_see_is_said_not_to() -> None:
    results = fake_results()
    jobs = tuple(
        replace(job, scores={**job.scores, "mean-image": dict.fromkeys(HEADLINE, 0.69)}) if job.arm == "mlp" else job
        for job in results.jobs
    )
    verdict = judge(replace(results, jobs=jobs))
    assert any(line.startswith("It is not shown that it sees") for line in verdict.lines)
    assert any("less than 10 points above its blind control" in caveat for caveat in verdict.caveats)


def test_an_arm_whose_tokens_became_alike_at_every_rate_is_named_and_its_rates_are_marked() -> None:
    results = fake_results()
    jobs = tuple(
        replace(job, alike=job.kind == "tune" and (job.arm == "q-former" or (job.arm == "mlp" and job.rate == 3e-3)))
        for job in results.jobs
    )
    results = replace(results, jobs=jobs)
    said = [caveat for caveat in judge(results).caveats if "alike" in caveat]
    assert len(said) == 1
    assert said[0].startswith("At every learning rate tried, the visual tokens of an image became alike: q-former.")
    assert [row[3] for row in rates_table(results) if row[0] == "mlp"] == ["", "chosen", "visual tokens became alike"]
    assert not any("alike" in caveat for caveat in judge(fake_results()).caveats)


def test_main_effects_average_over_the_other_factor() -> None:
    levels = {
        "mlp, few": [0.40, 0.41, 0.42], "mlp, many": [0.50, 0.51, 0.52],
        "pool, few": [0.30, 0.31, 0.33], "pool, many": [0.40, 0.41, 0.43],
    }  # fmt: skip
    factors = {
        "connector": {"mlp": ("mlp, few", "mlp, many"), "pool": ("pool, few", "pool, many")},
        "tokens": {"few": ("mlp, few", "pool, few"), "many": ("mlp, many", "pool, many")},
    }
    effects = judge(with_arms(levels, factors=factors)).effects
    assert [(effect.factor, effect.left, effect.right) for effect in effects] == [
        ("connector", "mlp", "pool"),
        ("tokens", "few", "many"),
    ]
    assert effects[0].difference.mean == pytest.approx((0.1 + 0.1 + 0.09) / 3)
    assert effects[1].difference.mean == pytest.approx(-0.1)


def test_a_study_without_a_finished_arm_says_why() -> None:
    empty = replace(fake_results(), jobs=(), failures=("mlp could not be judged: no rate.",))
    with pytest.raises(ValueError, match="mlp could not be judged"):
        judge(empty)
