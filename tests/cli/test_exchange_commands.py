"""`isthmus import` and `isthmus export`, as typed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.cli.main import MISTAKE, main
from isthmus.exchange.processors import image_backend
from isthmus.recipes import RECIPES

sys.path.append(str(Path(__file__).parent.parent / "exchange"))

import tiny_natives as tiny


def test_a_native_folder_comes_in_and_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.make("LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), tmp_path / "native")
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert main(["import", str(tmp_path / "native"), "--to", str(tmp_path / "run")]) == 0
    assert "connector: 4 tensors" in capsys.readouterr().out
    assert main(["cost", str(tmp_path / "run")]) == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if " connector " in line)
    assert said.count(f" {16 * 32 + 32 + 32 * 32 + 32:,} ") == 2  # its parameters, and those that learn
    assert main(["doctor", str(tmp_path / "run")]) == MISTAKE
    assert "was imported (llava " in (error := capsys.readouterr().err)
    assert "no training to judge" in error
    assert "version" not in error
    out = ["--out", str(tmp_path / "out"), "--images", str(tmp_path / "a.png")]
    assert main(["export", str(tmp_path / "run"), "--to", "llava", *out]) == 0
    said = capsys.readouterr().out
    assert "Equal on 1 images x 2 questions (ids, logits, writings, pixels, batches)" in said
    assert f"Images: {image_backend()}, off our pixels by 0" in said
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert main(["export", str(tmp_path / "run"), "--to", "blip2", *out]) == MISTAKE
    assert "It can go out as 'llava'" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--to", "llava", "--out", "x", "--images", "no.png"]) == MISTAKE
    assert "No image file" in capsys.readouterr().err


def test_connector_weights_come_in_for_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = RECIPES["llava15/tiny-stage1"]().model
    own = model.connector.build(model.source(), model.target()).state_dict()
    state = {key.replace("project.", "model.mm_projector."): value for key, value in own.items()}
    torch.save(state, tmp_path / "mm_projector.bin")
    line = ["import", str(tmp_path / "mm_projector.bin"), "--to", str(tmp_path / "run")]
    assert main([*line, "--recipe", "llava15/tiny-stage1"]) == 0
    assert "connector: 4 tensors" in capsys.readouterr().out
    assert main(["cost", str(tmp_path / "run"), "--shelf", "--text-tokens", "0"]) == 0
    row = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("│ mlp "))
    assert f"{sum(one.numel() for one in own.values()):,}" in row
    assert main(line) == MISTAKE
    assert main([*line, "--model.connector", "linear"]) == MISTAKE
    assert "give --recipe" in capsys.readouterr().err


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    line = ["import", str(tmp_path / "empty"), "--to", str(tmp_path / "run")]
    assert main(line) == MISTAKE
    assert "has no config.json: it holds nothing. Give a folder in the format" in capsys.readouterr().err
    assert main([*line, "--recipe", "llava15/tiny-stage1"]) == MISTAKE
    assert "holds no weights: *.safetensors or *.bin are wanted, it has no file at all" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_images_bundled_figures_are_taken() -> None:
    from isthmus.cli.exporting import NUM_IMAGES, bundled_images

    images = bundled_images()
    assert len(images) == NUM_IMAGES
    assert len({image.load().size for image in images}) > 1
