"""Watching a run learn: at some log lines the signs of health and the gradient norms by part, and the doctor's word.

A look costs a forward pass or two, so there are at most about forty in a run, and none in runs of a few steps.
"""

import math
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list

from isthmus.data.collate import Batch
from isthmus.measure.checkup import check_up
from isthmus.measure.doctor import Facts
from isthmus.measure.signs import gradient_norms
from isthmus.train import freeze, sharding
from isthmus.train.objectives.gather import apart
from isthmus.train.objectives.itc import ITC
from isthmus.train.objectives.itg import ITG
from isthmus.train.objectives.itm import ITM
from isthmus.train.stage import Stage

if TYPE_CHECKING:
    from isthmus.train.setup import Setup

MOST_LOOKS, NEAREST = 40, 20
"""Looks in a run, at most (and one at its end); steps between two looks, at least."""


def facts_of(stage: Stage, num_steps: int) -> Facts:
    """What the doctor must know of a stage."""
    warmup = stage.schedule.warmup_steps
    names = {ITM: "itm", ITG: "itg"}
    given = [one for one in stage.objectives if isinstance(one, ITM) and one.negatives == "given"]
    return Facts(
        losses=tuple(
            dict.fromkeys(
                one.name if isinstance(one, ITC) else names.get(type(one), "loss") for one in stage.objectives
            )
        ),
        num_steps=num_steps,
        warmup_steps=math.ceil(stage.schedule.warmup_fraction * num_steps) if warmup is None else warmup,
        pairs=stage.batch_size,
        smoothing=next((one.label_smoothing for one in stage.objectives if isinstance(one, ITC)), 0.0),
        true_share=1 / 2 if given else 1 / 3,
        half_encoder=getattr(stage.model.encoder, "precision", "") == "float16",
    )


def is_due(step: int, num_steps: int, log_every: int) -> bool:
    """Whether the log line after `step` steps holds signs: the first line in each stretch, and the last of a run."""
    stretch = max(NEAREST, math.ceil(num_steps / MOST_LOOKS))
    if step == num_steps:
        return step >= stretch
    return step % log_every == 0 and step // stretch > (step - log_every) // stretch


def look(setup: "Setup", batch: Batch) -> dict[str, float]:
    """The signs of a model whose gradients have just come, over a batch of this process; modes are restored.

    Other processes than the main one look at nothing, or, sharded, along with it at its batch.
    """
    main = setup.accelerator.is_main_process
    if not main and not setup.sharded:
        return {}
    if setup.sharded:
        [batch] = broadcast_object_list([batch])
    found = gradient_norms(sharding.norms_only(setup.model.named_parameters()))
    norms = {f"grad_norm {part}": norm for part, norm in found.items()}
    losses = facts_of(setup.stage, setup.num_steps).losses
    setup.model.eval()
    with apart():
        signs = check_up(setup.model, batch.to(setup.accelerator.device), losses)
    freeze.set_modes(setup.model)
    return {**signs, **norms} if main else {}
