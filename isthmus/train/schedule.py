"""The learning rate as a pure function of the step: linear warm-up, then a cosine."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to the peak, then half a cosine down to `min_fraction` of it.

    `warmup_steps` counts in optimizer steps and wins over `warmup_fraction`, the share of all steps, when it is given.

    Raises:
        ValueError: a fraction outside [0, 1), or a negative number of steps.
    """

    warmup_fraction: float = 0.03
    warmup_steps: int | None = None
    min_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must lie in [0, 1), got {self.warmup_fraction}.")
        if not 0 <= self.min_fraction <= 1:
            raise ValueError(f"min_fraction must lie in [0, 1], got {self.min_fraction}.")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {self.warmup_steps}.")

    def factor(self, step: int, total: int) -> float:
        """What the peak rate is multiplied by at `step` (0 is the first) of `total` optimizer steps."""
        warmup = self.warmup_steps
        if warmup is None:
            warmup = math.ceil(self.warmup_fraction * total)
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return self.min_fraction + (1 - self.min_fraction) * 0.5 * (1 + math.cos(math.pi * done))
