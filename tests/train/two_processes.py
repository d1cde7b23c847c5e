"""Run by `torchrun --nproc-per-node 2`: trains one tiny stage into the folder that is named."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from medley import medley_stage
from tiny_stage import Swatches, tiny_stage
from tiny_stage1 import tiny_stage1

from isthmus.connectors import MlpConfig
from isthmus.data.sources import Source
from isthmus.train.loop import train
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.objectives.shared import Gradients
from isthmus.train.processes import leave_group
from isthmus.train.stage import AdamW, Stage


def stage_of(models: Path, kind: str) -> Stage:
    """Half of the samples have no image, and a micro-batch is one sample, so that ranks meet batches without any.

    "medley" has clips and sounds too. "aligned" kinds are first stages; "local" and "both" say where contrast sends its
    gradient. In "aligned-one" each process has one pair, in "aligned-alike" both have the same image. "aligned-mined"
    has two images in all, so that each row has one negative to mine, whatever is drawn.
    """
    linear = AdamW(peak_lr=0.3, eps=1.0)  # steps follow the gradient, so rounding is not made large
    if kind in ("aligned-one", "aligned-alike", "aligned-mined", "aligned-mined-micro"):
        few = Source(of=Swatches(num={"aligned-one": 8, "aligned-alike": 1}.get(kind, 2)))
        mined = kind.startswith("aligned-mined")
        alone = tiny_stage1(models, data=(few,), validation=(), batch_size=4 if mined else 2, log_every=1)
        alone = replace(alone, optimizer=linear if mined else alone.optimizer)
        alone = replace(alone, micro_batch_size=1 if kind.endswith("micro") else None)
        return replace(alone, objectives=(ITC(same_image=True), ITM(same_image=True), ITG()))
    if kind.startswith("aligned"):
        gradients: Gradients = "both" if "both" in kind else "local"
        aligned = tiny_stage1(models, objectives=(ITC(gradients=gradients), ITG()), batch_size=8, log_every=1)
        return replace(aligned, optimizer=linear, validation=(), micro_batch_size=2 if "micro" in kind else None)
    if kind == "medley":  # a micro-batch is one sample: most have no image, no clip or no sound
        return medley_stage(models, micro_batch_size=1)
    stage = tiny_stage(models, steps=4, batch_size=4, log_every=1, validate_every=2)
    return replace(
        stage,
        data=(Source(of=Swatches(text_every=2)),),
        optimizer=AdamW(peak_lr=1e-3, clip_norm=1.0),
        model=replace(stage.model, connector=MlpConfig(depth=2)),
        train=("encoder", "connector") if kind == "pixels" else ("connector",),
        micro_batch_size=1,
    )


if __name__ == "__main__":
    models, run, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    os.environ["ISTHMUS_CACHE"] = str(models / "cache")
    train(stage_of(models, kind), run, progress=False)
    leave_group()
