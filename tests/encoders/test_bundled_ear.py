"""The bundled ear is an ordinary audio tower, and tells what it was not trained to hear apart."""

from pathlib import Path

import torch

from isthmus.data.sound import FileSound
from isthmus.data.sources.spoken_digits import FOLDER
from isthmus.encoders import AudioEncoder
from isthmus.features import FeatureShape, Grid

BUNDLED = FOLDER.parent


def test_the_ear_hears_a_digit() -> None:
    config = AudioEncoder(name="bundled/ear", window_s=1.0, max_windows=5, window_views=True, pool="mean")
    assert config.shape() == FeatureShape(width=128, grid=Grid(1, 1, 1))
    assert config.rate == 16_000
    assert 0.7e6 < config.parameters() < 1.0e6
    encoder = config.build()
    examples = [FileSound(root=str(path.parent), path=path.name) for path in sorted(FOLDER.glob("examples/*.flac"))]
    assert len(examples) == 10
    with torch.no_grad():
        heard = torch.cat([encoder(encoder.prepare(one.load()).pixels).tokens[:, 0] for one in examples])
    assert heard.shape == (10, 128)
    likeness = torch.nn.functional.cosine_similarity(heard[:, None] - heard.mean(0), heard[None] - heard.mean(0), dim=2)
    assert float((likeness - torch.eye(10)).max()) < 0.95


def test_everything_bundled_is_small() -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(BUNDLED / "ear") < 2_000_000
    assert size(BUNDLED) < 60_000_000
    sounds_and_clips = sum(size(BUNDLED / name) for name in ("ear", "digits", "clips"))
    assert size(BUNDLED) - sounds_and_clips < 45_000_000
    assert "Licence" in (BUNDLED / "ear" / "README.md").read_text()
