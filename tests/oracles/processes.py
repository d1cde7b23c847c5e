"""Runs a script as several processes that meet over gloo, and collects what each saved."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent


def run_processes(script: str, name: str, world: int, folder: Path) -> list[dict[str, Tensor]]:
    """`script NAME FOLDER` once for each rank; what each left in `FOLDER/rankN.safetensors`."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    shared = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), name, str(folder)],
            env={**shared, "RANK": str(rank), "WORLD_SIZE": str(world)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    said = [one.communicate(timeout=900)[0] for one in running]
    assert all(one.returncode == 0 for one in running), "\n".join(said)
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(world)]
