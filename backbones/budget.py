"""How long a training runs, its learning rate at any moment, and its log."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(kw_only=True)
class Budget:
    """Ends after `steps` when given, else after `minutes` of wall-clock; `progress` goes from 0 to 1."""

    minutes: float
    steps: int | None = None
    step: int = 0
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """Done share of the training."""
        done = self.step / self.steps if self.steps is not None else self.elapsed() / (60 * self.minutes)
        return min(1.0, done)

    def over(self) -> bool:
        """Whether the training is finished."""
        return self.progress() >= 1.0

    def rate(self, *, warmup_steps: int = 100) -> float:
        """Factor on every peak learning rate."""
        return rate_at(self.progress(), self.step, warmup_steps=warmup_steps)


def rate_at(progress: float, step: int, *, warmup_steps: int = 50, least: float = 0.01) -> float:
    """Linear warm-up, then half a cosine down to `least`."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return warm * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress)))


def plateau_at(progress: float, step: int, *, warmup_steps: int = 30, falls_from: float = 0.55) -> float:
    """Linear warm-up, the peak for long, then straight down to nothing."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return warm * min(1.0, (1 - progress) / (1 - falls_from))


class Log:
    """One JSON line per record, written at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w")

    def write(self, **record: float | int | str) -> None:
        """Append one record and show it."""
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()}
        self.file.write(json.dumps(rounded) + "\n")
        self.file.flush()
        print(json.dumps(rounded), flush=True)


class Means:
    """Running means between two log lines."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Count one value."""
        total, count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (total + value * weight, count + weight)

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {name: total / count for name, (total, count) in self.sums.items() if count > 0}
        self.sums = {}
        return means
