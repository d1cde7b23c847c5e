"""A run that is killed with SIGKILL at any moment and resumed equals an unbroken one, byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.long
def test_killed_and_resumed_runs_equal_the_unbroken_one(tmp_path: Path) -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    said = subprocess.run(
        [sys.executable, str(HERE / "killed_runs.py"), str(tmp_path), "20"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    random, _, saves = said.stdout.split("equal ")[-1].partition(" random ")
    assert int(random) >= 10
    assert int(saves.split()[0]) >= 10
