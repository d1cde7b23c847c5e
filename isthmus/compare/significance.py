"""Paired differences with t intervals, and Holm's correction when several are read together.

The Student distribution is computed here from the regularised incomplete beta function (continued fraction of
DLMF 8.17.22, evaluated by Lentz's method); it agrees with published tables to 1e-9, so SciPy is not needed.
Holm: "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    value = d
    for m in range(1, 1_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1.0 + step * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + step / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and x in 0..1."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def t_tails(t: float, freedom: int) -> float:
    """P(|T| >= |t|) for Student's T with `freedom` degrees of freedom."""
    if math.isinf(t):
        return 0.0
    return incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))


def t_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = `confidence`: 12.706 for 0.95 and one degree of freedom.

    Raises:
        ValueError: a confidence outside 0..1, or no degree of freedom.
    """
    if not 0.0 < confidence < 1.0 or freedom < 1:
        raise ValueError(f"t_quantile needs a confidence between 0 and 1 and freedom >= 1: {confidence}, {freedom}.")
    low, high = 0.0, 1.0
    while t_tails(high, freedom) > 1.0 - confidence:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        if t_tails(middle, freedom) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its t interval. `low` and `high` are infinite, and `p` is 1, when one value alone was seen."""

    mean: float
    low: float
    high: float
    p: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0

    def flipped(self) -> "Interval":
        """The same difference seen from the other side."""
        return Interval(mean=-self.mean, low=-self.high, high=-self.low, p=self.p, count=self.count)

    @property
    def half(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2.0


def interval(values: Sequence[float], confidence: float = 0.95, *, resolution: float = 0.0) -> Interval:
    """Mean, t interval and the two-sided p of "the mean is zero" for independent values (one a seed).

    `resolution` is the step in which the values come (one question's worth of accuracy): values that are equal by
    coarseness alone then keep the variance of rounding, resolution**2 / 12.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("An interval needs at least one value.")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean=mean, low=-math.inf, high=math.inf, p=1.0, count=1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1) + resolution**2 / 12.0
    error = math.sqrt(variance / count)
    half = t_quantile(confidence, count - 1) * error
    p = float(mean == 0.0) if error == 0.0 else t_tails(mean / error, count - 1)
    return Interval(mean=mean, low=mean - half, high=mean + half, p=p, count=count)


def paired(
    left: Mapping[Key, float], right: Mapping[Key, float], confidence: float = 0.95, *, resolution: float = 0.0
) -> Interval:
    """The interval of `left - right` over the keys (seeds) that both have.

    Raises:
        ValueError: no key in both.
    """
    shared = [key for key in left if key in right]
    if not shared:
        raise ValueError(f"Nothing to pair: the left has {list(left)}, the right has {list(right)}.")
    return interval([left[key] - right[key] for key in shared], confidence, resolution=resolution)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's adjusted p-values: compare each with 0.05 to keep the chance of any false claim under 5%."""
    adjusted: dict[Key, float] = {}
    running = 0.0
    ordered = sorted(p_values, key=lambda key: p_values[key])
    for rank, key in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_values[key]))
        adjusted[key] = running
    return {key: adjusted[key] for key in p_values}
