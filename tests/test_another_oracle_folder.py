"""Another folder of oracle files in place of ours: other sizes, seeds and options, some forms only, the same code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracle_files import form_of
from oracle_variants import make_folder
from safetensors.torch import load_file, save_file

TESTS = Path(__file__).parent


def compare(folder: Path) -> subprocess.CompletedProcess[str]:
    """`ISTHMUS_ORACLES=FOLDER pytest tests/oracles`."""
    line = [sys.executable, "-m", "pytest", "tests/oracles", "-p", "no:xdist"]
    shared = {**os.environ, "ISTHMUS_ORACLES": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=TESTS.parent, env=shared, capture_output=True, text=True)


@pytest.mark.long
def test_another_folder_passes_and_a_number_in_it_that_is_wrong_fails(tmp_path: Path) -> None:
    names = make_folder(tmp_path)
    assert len(names) > 20
    assert all(form_of(name) not in (None, name) for name in names)
    done = compare(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"oracles: {len(names)} of {len(names)} files" in done.stdout
    wrong = tmp_path / "tokenpacker_two_levels.safetensors"
    tensors = load_file(wrong)
    tensors["outputs/scale2/y"] += 1e-3 * torch.ones(())
    save_file(tensors, wrong)
    for path in tmp_path.iterdir():
        if not path.name.startswith("tokenpacker"):
            path.unlink()
    done = compare(tmp_path)
    assert done.returncode == 1
    assert "tokenpacker_two_levels, outputs/scale2/y" in done.stdout
