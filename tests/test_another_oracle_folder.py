"""Another folder of oracle files in place of ours: other sizes, seeds and options, some forms only, the same code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracle_files import form_of
from oracle_images import make_images
from oracle_variants import make_folder
from safetensors.torch import load_file, save_file

TESTS = Path(__file__).parent


def compare(folder: Path) -> subprocess.CompletedProcess[str]:
    """`ISTHMUS_ORACLES=FOLDER pytest tests/oracles`."""
    line = [sys.executable, "-m", "pytest", "tests/oracles", "-p", "no:xdist"]
    shared = {**os.environ, "ISTHMUS_ORACLES": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=TESTS.parent, env=shared, capture_output=True, text=True)


def wrong_tensor(folder: Path, name: str, key: str) -> None:
    """A thousandth, or 2 where numbers are whole (pixels may be 1 off), is added to the tensor's first number."""
    tensors = load_file(folder / f"{name}.safetensors")
    first = tensors[key].flatten()[:1]
    first += 1e-3 if first.is_floating_point() else 2
    save_file(tensors, folder / f"{name}.safetensors")


def only(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.stem != name:
            path.unlink()


@pytest.mark.long
def test_another_folder_passes_and_a_number_in_it_that_is_wrong_fails(tmp_path: Path) -> None:
    names = make_folder(tmp_path)
    assert len(names) > 20
    assert all(form_of(name) not in (None, name) for name in names)
    done = compare(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"oracles: {len(names)} of {len(names)} files" in done.stdout
    only(tmp_path, "tokenpacker_two_levels")
    wrong_tensor(tmp_path, "tokenpacker_two_levels", "outputs/scale2/y")
    done = compare(tmp_path)
    assert done.returncode == 1
    assert "tokenpacker_two_levels, outputs/scale2/y" in done.stdout


@pytest.mark.long
def test_another_folder_of_tiles_layouts_and_positions_passes_and_each_fails_with_one_wrong_number(
    tmp_path: Path,
) -> None:
    names = make_images(tmp_path)
    assert all(form_of(name) not in (None, name) for name in names)
    done = compare(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"oracles: {len(names)} of {len(names)} files" in done.stdout
    for name in names:
        info = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        if (tmp_path / f"{name}.safetensors").exists():
            tensors = load_file(tmp_path / f"{name}.safetensors")
            wrong_tensor(tmp_path, name, next(key for key in tensors if "output" in key or "embeddings" in key))
        else:
            column = next(key for key in reversed(info["cases"][0]) if type(info["cases"][0][key]) is int)
            info["cases"][-1][column] += 1
            (tmp_path / f"{name}.json").write_text(json.dumps(info), encoding="utf-8")
    done = compare(tmp_path)
    assert f"{len(names)} failed" in done.stdout, done.stdout
