"""Pictures and sounds in one space: each through its own tower and map, in any order, refused where it does not fit."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_ears import save_ear

from isthmus.encoders import AudioEncoder, BoundEncoder, CachedEncoder, FeatureCache, Untiled, VisionEncoder
from isthmus.encoders.bound import MAPS
from isthmus.features import Clip, FeatureShape, Grid, Sound

WIDTH = 4


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> BoundEncoder:
    root = tmp_path_factory.mktemp("bound")
    save_ear("ast", root / "ear")
    folder = root / "maps"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "binding", "width": WIDTH, "eye": 192, "ear": 16}))
    torch.manual_seed(0)
    shapes = {"eye.weight": (WIDTH, 192), "eye.bias": (WIDTH,), "ear.weight": (WIDTH, 16), "ear.bias": (WIDTH,)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, folder / MAPS)
    ear = AudioEncoder(name=str(root / "ear"), window_s=0.3, max_windows=1, pool="mean")
    return BoundEncoder(name=str(folder), ear=ear)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (96, 96, 3), dtype=np.uint8))


def sound() -> Sound:
    return Sound(samples=np.random.default_rng(2).normal(0.0, 0.1, 4_000).astype(np.float32), rate=16_000)


def test_each_goes_through_its_own_tower(bound: BoundEncoder) -> None:
    assert bound.shape() == FeatureShape(width=WIDTH, grid=Grid(1, 1, 1))
    towers = bound.build()
    rows = torch.cat([towers.prepare(one).pixels for one in (picture(), sound(), picture())])
    with torch.no_grad():
        made = towers(rows).tokens[:, 0]
        eye = towers.eye(towers.eye.prepare(picture()).pixels).tokens.mean(1)
        ear = towers.ear(towers.ear.prepare(sound()).pixels).tokens.mean(1)
        wanted = {key: towers.maps[key](mean)[0] for key, mean in (("eye", eye), ("ear", ear))}
    for row, key in zip(made, ("eye", "ear", "eye"), strict=True):
        direction = wanted[key] / wanted[key].norm()
        torch.testing.assert_close(row, direction * math.sqrt(WIDTH), atol=1e-5, rtol=1e-4)
    assert bound.parameters() == sum(one.numel() for one in towers.parameters())
    assert bound.fingerprint() == bound.fingerprint()


def test_features_are_kept_for_both(bound: BoundEncoder, tmp_path: Path) -> None:
    class Ref:
        def __init__(self, key: str, loaded: Image.Image | Sound) -> None:
            self.key, self.loaded = key, loaded

        def load(self) -> Image.Image | Sound:
            return self.loaded

    cached = CachedEncoder(bound, FeatureCache(tmp_path))
    refs = [Untiled(of=Ref("a", picture())), Untiled(of=Ref("b", sound()))]
    features, plans = cached.features(refs)
    again, _ = cached.features(refs)
    assert features.tokens.shape == (2, 1, WIDTH)
    assert [plan.views for plan in plans] == [range(1), range(1, 2)]
    assert torch.equal(features.tokens, again.tokens)
    assert cached.encoder_calls == 2


def test_what_does_not_fit_is_refused(bound: BoundEncoder) -> None:
    with pytest.raises(ValueError, match="an ear with max_windows=1"):
        BoundEncoder(ear=AudioEncoder(name="bundled/ear"))
    other = BoundEncoder(
        name=bound.name, eye=bound.eye, ear=AudioEncoder(name="bundled/ear", max_windows=1, window_s=1.0)
    )
    with pytest.raises(ValueError, match="Bind these two"):
        other.shape()
    with pytest.raises(ValueError, match="a clip of 2 frames"):
        bound.build().prepare(Clip(frames=(picture(), picture()), times_s=(0.0, 1.0)))


def test_the_eye_of_the_test_is_the_bundled_one(bound: BoundEncoder) -> None:
    assert isinstance(bound.eye, VisionEncoder)
    assert bound.eye.shape().width == 192
