"""95% bounds of a share, and of a difference between two scores of the same questions."""

import math
from collections import defaultdict
from collections.abc import Sequence

Z = 1.959964
"""Of the normal distribution: 95% lie within so many standard deviations."""


def share_bounds(right: float, num: int) -> tuple[float, float]:
    """Wilson's bounds of the share `right / num`: 10 of 100 gives about (0.055, 0.174).

    Raises:
        ValueError: no trials, or more right than there were.
    """
    if num < 1 or not 0 <= right <= num:
        raise ValueError(f"A share needs 1 trial or more and at most as many right, got {right} of {num}.")
    share, square = right / num, Z * Z
    centre = (share + square / (2 * num)) / (1 + square / num)
    half = Z * math.sqrt(share * (1 - share) / num + square / (4 * num * num)) / (1 + square / num)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_bounds(
    left: Sequence[float], right: Sequence[float], groups: Sequence[str]
) -> tuple[float, float, float]:
    """The mean of `left - right` over the same questions, with bounds; questions of one group (a scene) stand as one.

    Raises:
        ValueError: fewer than two groups, or rows of different lengths.
    """
    sums: dict[str, float] = defaultdict(float)
    for one, other, group in zip(left, right, groups, strict=True):
        sums[group] += one - other
    if len(sums) < 2:
        raise ValueError(f"Bounds of a difference need two groups or more, got {len(sums)}.")
    mean = sum(sums.values()) / len(left)
    counts: dict[str, int] = defaultdict(int)
    for group in groups:
        counts[group] += 1
    spread = sum((sums[group] - mean * counts[group]) ** 2 for group in sums)
    half = Z * math.sqrt(spread * len(sums) / (len(sums) - 1)) / len(left)
    return mean, mean - half, mean + half
