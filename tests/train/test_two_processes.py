"""Two CPU processes train what one does: batches without images on a rank, accumulation, one log."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from medley import medley_stage
from tiny_stage import tiny_stage
from two_processes import stage_of

from isthmus.runs import Run
from isthmus.train.loop import train

HERE = Path(__file__).parent


def launch_program(name: str, *arguments: str) -> None:
    """Run a program of this folder in two processes."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    program = [str(HERE / name), *arguments]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = subprocess.run(
        [sys.executable, *launcher, *program],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,  # a busy machine starts processes slowly
    )
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "kind",
    [
        "features",
        "pixels",
        "medley",
        "aligned",
        "aligned-both",
        "aligned-both-micro",
        "aligned-mined",
        "aligned-mined-micro",
    ],
)
def test_two_processes_train_what_one_does(tmp_path: Path, kind: str) -> None:
    tiny_stage(tmp_path)
    medley_stage(tmp_path)
    train(stage_of(tmp_path, kind), tmp_path / "one", progress=False)
    launch_program("two_processes.py", str(tmp_path), str(tmp_path / "two"), kind)
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    assert [line["step"] for line in one.log()] == [line["step"] for line in two.log()]
    for ours, theirs in zip(one.log(), two.log(), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=1e-4), (ours["step"], name)
    ours, theirs = one.weights(), two.weights()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["aligned-one", "aligned-alike"])
def test_a_pair_each_and_nothing_to_mine(tmp_path: Path, kind: str) -> None:
    """With one image in both processes there is no negative: nothing is judged, and all that learns stays finite."""
    stage = stage_of(tmp_path, kind)
    launch_program("two_processes.py", str(tmp_path), str(tmp_path / "two"), kind)
    run = Run(tmp_path / "two")
    steps = [line for line in run.log() if "itm" in line]
    assert len(steps) == stage.steps
    assert run.result["skipped"] == []
    for line in steps:
        assert all(math.isfinite(line[name]) for name in ("itc", "itm", "itg", "grad_norm"))
        assert (line["itm"] == 0.0) == (kind == "aligned-alike")
    weights = run.weights()
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    assert bool(weights["connector.heads.match.bias"].any()) == (kind == "aligned-one")  # it starts at 0
