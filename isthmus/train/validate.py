"""The loss on held-out samples while training."""

from collections.abc import Iterator
from typing import TypedDict

import torch

from isthmus.data.collate import Batch
from isthmus.train import freeze
from isthmus.train.objectives.gather import apart
from isthmus.train.progress import Progress, ProgressDisplay
from isthmus.train.setup import Setup
from isthmus.train.steps import autocast, check_finite, reduce_sum


class Best(TypedDict):
    """Where the lowest validation loss so far was seen, and what it was."""

    step: int
    loss: float


@torch.no_grad()
def validate(setup: Setup, display: ProgressDisplay) -> float:
    """The weighted mean loss over all held-out samples, without dropout; modes are restored.

    Raises:
        ValueError: it is not a finite number.
    """
    setup.model.eval()
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    total = 0 if setup.feed.held_out is None else len(setup.feed.held_out)
    done = 0
    for batch, own in _batches(setup):
        with autocast(setup), apart():
            losses = setup.losses(batch.to(setup.accelerator.device))
        counts = setup.losses.counts(batch)
        weights = setup.losses.weights(list(losses), batch)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + (float(loss) if own else 0.0)
            sums[f"{name}|count"] = sums.get(f"{name}|count", 0.0) + (counts[name] if own else 0)
        done += len(batch.ids) * setup.accelerator.num_processes
        display.update(Progress(name=setup.stage.name, phase="validate", done=min(done, total), total=total))
    freeze.set_modes(setup.model)
    names = sorted(sums)
    summed = dict(zip(names, reduce_sum(setup, [sums[name] for name in names]), strict=True))
    means = {name: summed[name] / max(1.0, summed[f"{name}|count"]) for name in weights}
    check_finite({f"validation {name}": mean for name, mean in means.items()})
    return sum(weights[name] * mean for name, mean in means.items())


def _batches(setup: Setup) -> Iterator[tuple[Batch, bool]]:
    """This process's held-out batches, then, until the others have read theirs too, one that does not count."""
    mine = setup.feed.validation()
    spare: Batch | None = None
    while True:
        batch = next(mine, None)
        if not reduce_sum(setup, [float(batch is not None)])[0]:
            return
        if batch is None and spare is None:
            spare = setup.feed.step(0)[0]
        elif batch is not None:
            spare = batch
        assert spare is not None
        yield spare, batch is not None
