"""The bundled eye through the same code as any other tower, and the examples of the page on encoders."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from isthmus.encoders import VisionEncoder
from isthmus.features import FeatureShape, Grid

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def test_the_default_encoder_is_the_bundled_eye() -> None:
    config = VisionEncoder()
    assert config.shape() == FeatureShape(width=192, grid=Grid(1, 12, 12))
    assert config.parameters() == 2_734_464
    assert config.flops() == 877_220_352
    encoder = config.build()
    pixels = torch.cat([encoder.prepare(Image.new("RGB", (96, 96), colour)).pixels for colour in ("red", "blue")])
    with torch.no_grad():
        tokens = encoder(pixels).tokens
    assert tokens.shape == (2, 144, 192)
    assert bool(torch.isfinite(tokens).all())
    assert not torch.allclose(tokens[0], tokens[1])


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_pages_examples_run(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path))
    names: dict[str, object] = {}
    exec(compile(BLOCKS[number], "encoders.md", "exec"), names)
    assert len(names) > 1
