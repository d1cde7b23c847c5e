"""One optimizer step: batches in, losses summed, gradients clipped, weights moved; and the sums that are logged."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.train import sharding
from isthmus.train.drawn import drawn
from isthmus.train.objectives.base import NotFiniteError
from isthmus.train.objectives.shared import Part
from isthmus.train.objectives.whole import compares, parts_of
from isthmus.train.optimizer import set_rates
from isthmus.train.progress import Progress, ProgressDisplay
from isthmus.train.randomness import seed_torch
from isthmus.train.setup import Setup
from isthmus.train.watch import is_due, look


class Steps:
    """Takes steps and keeps the sums since the last log line. `window` is what `window_state` said at a save."""

    def __init__(
        self, setup: Setup, *, display: ProgressDisplay, first: int, window: dict[str, Any] | None = None
    ) -> None:
        self.setup, self.stage, self.display = setup, setup.stage, display
        self.parameters = [one for one in setup.model.parameters() if one.requires_grad]
        self.sums: dict[str, float] = dict(window["sums"]) if window else {}
        self.counts: dict[str, int] = dict(window["counts"]) if window else {}
        self.pending: dict[str, list[Tensor]] = {}
        self.grad_norm: Tensor | None = None
        self.signs: dict[str, float] = {}
        self.batch: Batch | None = None
        self.first = first
        self.skip_time()

    def take(self, step: int) -> None:
        """Take step number `step` (0 is the first)."""
        setup, stage = self.setup, self.stage
        set_rates(setup.optimizer, stage.schedule.factor(step, setup.num_steps))
        begun = time.perf_counter()
        batches = setup.feed.step(step)
        self.batch = batches[0]
        self.feed_seconds += time.perf_counter() - begun
        counts = self._global_counts(batches)

        def seed(number: int) -> None:
            seed_torch(stage.seed, "step", step, number, setup.accelerator.process_index)

        with drawn(setup.model, stage.seed, step):
            parts = self._parts(batches, seed)
            for number, batch in enumerate(batches):
                seed(number)
                syncs = number == len(batches) - 1
                with contextlib.nullcontext() if syncs else setup.accelerator.no_sync(setup.module):
                    self._backward(batch, counts, parts[number])
            if setup.sharded:
                sharding.average_gradients(self.parameters)
            if is_due(step + 1, setup.num_steps, stage.log_every):
                with autocast(setup):
                    self.signs = look(setup, batches[0])
        if stage.optimizer.clip_norm is not None:
            clip = sharding.clip_gradients if setup.sharded else torch.nn.utils.clip_grad_norm_
            self.grad_norm = clip(self.parameters, stage.optimizer.clip_norm)
        setup.optimizer.step()
        setup.optimizer.zero_grad(set_to_none=True)
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self._note(batches, step + 1)

    def window_values(self, step: int) -> dict[str, int | float | str | None]:
        """The log line of the steps since the last one, which starts a new window. Losses are means over items."""
        self._resolve()
        values: dict[str, int | float | str | None] = {
            name: total / max(1, self.counts[name]) for name, total in self.sums.items()
        }
        values["lr"] = self.setup.optimizer.param_groups[0]["lr"]
        values["grad_norm"] = None if self.grad_norm is None else float(self.grad_norm)
        values["items"] = sum(self.counts.values())
        values["samples"] = step * self.stage.batch_size
        self.sums, self.counts = {}, {}
        return values

    @torch.no_grad()
    def feature_max(self) -> float:
        """The largest feature of the last batch that was taken; 0 without images."""
        batch = self.batch
        if batch is None or (batch.features is None and batch.pixels is None):
            return 0.0
        return float(self.setup.model.features(batch.to(self.setup.accelerator.device)).tokens.abs().max())

    def window_state(self) -> dict[str, Any]:
        """The sums of the window so far, for a save.

        Raises:
            ValueError: a loss or a gradient is not finite, so the weights are not worth saving.
        """
        self._resolve()
        norm = 0.0 if self.grad_norm is None else float(self.grad_norm)
        check_finite({**self.sums, "grad_norm": norm})
        return {"sums": self.sums, "counts": self.counts}

    def rates(self) -> dict[str, int | float | str | None]:
        """Wall-clock of the window: seconds, samples and tokens a second, over all processes."""
        spent = max(1e-9, time.perf_counter() - self.begun)
        values: dict[str, int | float | str | None] = {
            "seconds": spent,
            "steps": self.taken,
            "samples_per_s": self.taken * self.stage.batch_size / spent,
            "tokens_per_s": self.tokens * self.setup.accelerator.num_processes / spent,
            "feed_seconds": self.feed_seconds,
        }
        self.skip_time()
        return values

    def skip_time(self) -> None:
        """Start the clock anew: what was done since is no training."""
        self.begun = time.perf_counter()
        self.taken = self.tokens = 0
        self.feed_seconds = 0.0

    def _parts(self, batches: list[Batch], seed: Callable[[int], None]) -> Sequence[Part | None]:
        """Each micro-batch's share, where an objective compares the rows of all of them."""
        setup, objectives = self.setup, self.stage.objectives
        if len(batches) == 1 or not compares(objectives):
            return [None] * len(batches)
        moved = [batch.to(setup.accelerator.device) for batch in batches]
        with autocast(setup):
            return parts_of(setup.model, objectives, moved, seed)

    def _backward(self, batch: Batch, counts: dict[str, int], part: Part | None) -> None:
        setup, device = self.setup, self.setup.accelerator.device
        with autocast(setup):
            losses: dict[str, Tensor] = setup.module(batch.to(device), part)
        weights = setup.losses.weights(list(losses), batch)
        processes = setup.accelerator.num_processes
        parts = [loss * (weights[name] * processes / counts[name]) for name, loss in losses.items()]
        setup.accelerator.backward(torch.stack(parts).sum())
        for name, loss in losses.items():
            self.pending.setdefault(name, []).append(loss.detach())

    def _global_counts(self, batches: list[Batch]) -> dict[str, int]:
        """Items of each loss in the whole global batch."""
        local: dict[str, int] = {}
        for batch in batches:
            for name, count in self.setup.losses.counts(batch).items():
                local[name] = local.get(name, 0) + count
        summed = reduce_sum(self.setup, [float(count) for count in local.values()])
        return {name: max(1, int(count)) for name, count in zip(local, summed, strict=True)}

    def _resolve(self) -> None:
        """Add the losses that wait as tensors to the sums, in order."""
        if not self.pending:
            return
        names = sorted(self.pending)
        lengths = [len(self.pending[name]) for name in names]
        waiting = torch.stack([loss for name in names for loss in self.pending[name]]).tolist()
        summed = iter(reduce_sum(self.setup, waiting))
        for name, length in zip(names, lengths, strict=True):
            for _ in range(length):
                self.sums[name] = self.sums.get(name, 0.0) + next(summed)
        self.pending = {}

    def _note(self, batches: list[Batch], done: int) -> None:
        self.taken += 1
        self.tokens += sum(int(batch.mask.sum()) for batch in batches)
        if not self.display.due and done < self.setup.num_steps:
            return
        spent = max(1e-9, time.perf_counter() - self.begun)
        loss = next(iter(self.pending.values()))[-1]
        counts = next(iter(self.setup.losses.counts(batches[-1]).values()))
        speed = self.taken / spent
        self.display.update(
            Progress(
                name=self.stage.name,
                phase="train",
                done=done,
                total=self.setup.num_steps,
                loss=float(loss) / max(1, counts),
                samples_per_s=speed * self.stage.batch_size,
                tokens_per_s=self.tokens * self.setup.accelerator.num_processes / spent,
                seconds_left=(self.setup.num_steps - done) / speed,
            )
        )


def autocast(setup: Setup) -> torch.autocast:
    """bf16 compute when the stage asks for it. Weights gathered for a layer are not kept in bf16 behind it."""
    kind, half = setup.accelerator.device.type, setup.stage.precision == "bf16"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=half, cache_enabled=not setup.sharded)


def reduce_sum(setup: Setup, values: list[float]) -> list[float]:
    """The sum of each value over all processes."""
    if setup.accelerator.num_processes == 1:
        return values
    kind = torch.float32 if setup.accelerator.device.type == "mps" else torch.float64
    local = torch.tensor(values, dtype=kind, device=setup.accelerator.device)
    summed: list[float] = setup.accelerator.reduce(local, reduction="sum").tolist()
    return summed


def check_finite(values: dict[str, float]) -> None:
    """Raises ValueError naming what is not a finite number."""
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise NotFiniteError(", ".join(broken))
