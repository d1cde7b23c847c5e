"""Student's quantiles against published tables, intervals by hand, Holm by its paper's example."""

import math

import pytest

from isthmus.compare.significance import Interval, holm, incomplete_beta, interval, paired, t_quantile, t_tails

TABLE = {
    (0.95, 1): 12.7062047364,
    (0.95, 2): 4.3026527297,
    (0.95, 3): 3.1824463053,
    (0.95, 4): 2.7764451052,
    (0.95, 9): 2.2621571628,
    (0.95, 30): 2.0422724563,
    (0.95, 1_000_000): 1.9599663564,
    (0.99, 4): 4.6040948713,
    (0.90, 7): 1.8945786051,
    (0.50, 1): 1.0,
}
"""Two-sided, from tables (NIST/SEMATECH e-Handbook 1.3.6.7.2; more digits from closed forms for 1 and 2)."""


@pytest.mark.parametrize(("at", "value"), TABLE.items())
def test_t_quantiles(at: tuple[float, int], value: float) -> None:
    assert t_quantile(*at) == pytest.approx(value, rel=2e-8)


@pytest.mark.parametrize("confidence", [0.05, 0.5, 0.9, 0.95, 0.999, 0.999999])
def test_closed_forms_for_one_and_two_degrees_of_freedom(confidence: float) -> None:
    assert t_quantile(confidence, 1) == pytest.approx(math.tan(math.pi * confidence / 2), rel=1e-9)
    share = (1 + confidence) / 2
    two = (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    assert t_quantile(confidence, 2) == pytest.approx(two, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 5, 19, 200])
@pytest.mark.parametrize("t", [0.01, 0.7, 1.96, 5.0, 40.0])
def test_tails_agree_with_numerical_integration(freedom: int, t: float) -> None:
    front = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    count = 4_000
    width = t / count
    inside = sum(
        (1 if k in (0, count) else 4 if k % 2 else 2) * (1 + (k * width) ** 2 / freedom) ** (-(freedom + 1) / 2)
        for k in range(count + 1)
    )
    assert t_tails(t, freedom) == pytest.approx(1 - 2 * front * inside * width / 3, abs=1e-7)


def test_the_incomplete_beta_function_is_a_distribution() -> None:
    assert incomplete_beta(2.0, 3.0, 0.0) == 0.0
    assert incomplete_beta(2.0, 3.0, 1.0) == 1.0
    assert incomplete_beta(1.0, 1.0, 0.3) == pytest.approx(0.3)
    assert incomplete_beta(2.0, 3.0, 0.4) == pytest.approx(0.5248)  # 6x^2 - 8x^3 + 3x^4
    assert incomplete_beta(2.5, 0.5, 0.8) + incomplete_beta(0.5, 2.5, 0.2) == pytest.approx(1.0)


def test_an_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])
    half = 4.3026527297 / math.sqrt(3)
    assert (found.mean, found.count) == (2.0, 3)
    assert found.low == pytest.approx(2 - half)
    assert found.high == pytest.approx(2 + half)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 2 * sqrt(3) with 2 degrees of freedom
    assert not found.excludes_zero


def test_one_value_says_nothing() -> None:
    found = interval([0.5])
    assert (found.low, found.high, found.p) == (-math.inf, math.inf, 1.0)
    assert not found.excludes_zero


def test_equal_values_leave_no_doubt() -> None:
    assert interval([0.1, 0.1]) == Interval(mean=0.1, low=0.1, high=0.1, p=0.0, count=2)
    assert interval([0.0, 0.0]).p == 1.0


def test_equality_by_coarseness_keeps_the_variance_of_rounding() -> None:
    found = interval([0.5, 0.5], resolution=0.01)
    assert found.half == pytest.approx(12.7062047364 * 0.01 / math.sqrt(24))
    assert interval([0.0, 1.0], resolution=0.0).half < interval([0.0, 1.0], resolution=0.5).half


def test_pairs_are_made_by_seed() -> None:
    found = paired({1: 0.5, 2: 0.7, 9: 1.0}, {2: 0.5, 1: 0.4})
    assert found.count == 2
    assert found.mean == pytest.approx(0.15)
    assert found.flipped().high == pytest.approx(-found.low)
    with pytest.raises(ValueError, match="Nothing to pair"):
        paired({1: 0.5}, {2: 0.5})


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        interval([])
    with pytest.raises(ValueError, match="confidence between 0 and 1"):
        t_quantile(1.0, 3)
