"""Run by `torchrun --nproc-per-node 2`: trains tiny stages one after another, each into a folder of its name.

A job is `kind:how`, or `folder/kind:how`. How is `copied` (DDP) or `sharded`, with `-stopped` behind it for a run that
is broken off after two steps, and `-resumed` for one that goes on from there. `parts` trains nothing: it writes how
many parts a model is cut into, and the share of every weight that each process holds.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from test_tiled_training import tiled
from tiny_models import save_model
from tiny_stage import Swatches, save_eye, tiny_stage
from torch.distributed.tensor import DTensor

from isthmus.adapters import Lora
from isthmus.connectors import GatedCrossAttentionConfig, MlpConfig, PerceiverConfig
from isthmus.connectors.arrange import Concatenate
from isthmus.data.sources import Source
from isthmus.encoders import StackedVisionEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.model import Model, VisionLanguageModel
from isthmus.train import loop, sharding
from isthmus.train.loop import train
from isthmus.train.options import RunOptions
from isthmus.train.processes import leave_group
from isthmus.train.stage import AdamW, Stage
from isthmus.train.steps import Steps

GATED = GatedCrossAttentionConfig(
    resampler=PerceiverConfig(num_latents=3, layers=1, heads=2, head_width=6, project=False), heads=2, head_width=8
)
BOTH = ("connector", "llm")
KINDS: dict[str, tuple[str, ...]] = {
    "frozen": ("connector",),
    "learning": BOTH,
    "tied": BOTH,
    "translator": BOTH,
    "watched": BOTH,
    "deep": ("connector",),
    "deep-learning": BOTH,
    "deep-again": BOTH,
    "deep-lora": BOTH,
    "deep-inside": ("connector", "encoder"),
    "deep-inside-lora": (*BOTH, "encoder"),
    "gated": BOTH,
    "half": BOTH,
}
"""What learns. "deep" kinds add to layers (DeepStack), of the encoder where "inside" (its blocks are computed again),
"again" computes layers again, "watched" is looked at by the doctor."""
FAMILIES = {"tied": "qwen2", "translator": "t5"}


def save_models(root: Path) -> None:
    """The folders of all language models; T5 without the dropout of its config, which differs between processes."""
    save_eye(root, blocks=2)
    for family in ("llama", *FAMILIES.values()):
        path = Path(save_model(family, root)) / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "dropout_rate": 0.0} if family == "t5" else config))


def stage_of(models: Path, kind: str) -> Stage:
    """Half of the samples have no image and a micro-batch is one sample, so that a rank meets batches without any;
    one rank has held-out samples for two batches, the other for one, or for none."""
    stage = tiny_stage(models, FAMILIES.get(kind, "llama"), steps=4, batch_size=4, log_every=1, micro_batch_size=1)
    stage = tiled(stage, "deepstack-l") if kind.startswith("deep") else stage
    assert stage.model.llm is not None
    lora = Lora(rank=4, dropout=0.0) if kind.endswith("lora") else Lora()
    model = replace(
        inside(stage.model, models, lora) if "inside" in kind else stage.model,
        connector=GATED if kind == "gated" else MlpConfig(depth=2),
        arrange=Concatenate() if kind == "gated" or "inside" in kind else stage.model.arrange,
        llm=replace(stage.model.llm, lora=lora, checkpointing=kind == "deep-again"),
    )
    stage = replace(
        stage,
        model=model,
        train=KINDS[kind],
        data=stage.data if kind.startswith("deep") else (Source(of=Swatches(text_every=2)),),
        validation=(Source(of=Swatches(num=1 if kind == "frozen" else 17, text_every=2, first=100)),),
        # A large eps: steps then follow the gradient, and rounding is not made large where the gradient is small.
        optimizer=AdamW(peak_lr=1e-2, eps=1e-3, clip_norm=0.5, weight_decay=0.01),
        precision="bf16" if kind == "half" else "float32",
        steps=4,
        save_every=2,
        validate_every=2,
    )
    if kind == "watched":
        stage = replace(stage, data=(Source(of=Swatches()),), micro_batch_size=None, steps=20, log_every=10)
    return stage


def inside(model: Model, models: Path, lora: Lora) -> Model:
    """The same whose encoder adds two crops before its two blocks."""
    assert isinstance(model.encoder, VisionEncoder)
    tiles = AnyresTiles(grids=((1, 2), (2, 1)), pad=False)
    name = save_eye(models, blocks=2)
    tower = replace(model.encoder, name=name, tiles=tiles, checkpointing=True, lora=lora)
    return replace(model, encoder=StackedVisionEncoder(tower=tower, groups=2, start_block=0))


class StoppedError(Exception):
    """Stands for a kill."""


def run_job(models: Path, root: Path, job: str) -> None:
    """Train one job."""
    place, _, way = job.partition(":")
    kind = place.rpartition("/")[2]
    if way == "parts":
        write_parts(models, root, kind)
        return
    how, _, part = way.partition("-")
    folder, stage, shard = root / place, stage_of(models, kind), how == "sharded"
    if part != "stopped":
        train(stage, folder, progress=False, options=RunOptions(shard=shard), resume=part == "resumed")
        return
    taken = Steps.take

    def take(steps: Steps, number: int) -> None:
        if number == 2:
            raise StoppedError
        taken(steps, number)

    loop.Steps.take = take  # type: ignore[method-assign]
    try:
        train(stage, folder, progress=False, options=RunOptions(shard=shard))
    except StoppedError:
        return
    finally:
        loop.Steps.take = taken  # type: ignore[method-assign]
    raise AssertionError("it was to be stopped")


def write_parts(models: Path, root: Path, kind: str) -> None:
    """Cut a model, and write what this process has of it."""
    accelerator = Accelerator(cpu=True)
    model = VisionLanguageModel(stage_of(models, kind).model, with_encoder=False)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    count = sharding.apply(model, accelerator.device)
    held = {name: one.to_local() if isinstance(one, DTensor) else one for name, one in model.named_parameters()}
    shares = {name: one.numel() / before[name].numel() for name, one in held.items()}
    again = sharding.gathered(dict(model.named_parameters()), keep=True)
    assert all(torch.equal(before[name], again[name]) for name in before)
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{kind}-{accelerator.process_index}.json").write_text(json.dumps({"count": count, "shares": shares}))


if __name__ == "__main__":
    models, root = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ["ISTHMUS_CACHE"] = str(models / "cache")
    for one in sys.argv[3:]:
        run_job(models, root, one)
    leave_group()
