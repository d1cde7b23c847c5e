"""A frozen encoder behind the cache: counted calls, the same features however they were asked for, fixed views."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_towers import save

from isthmus.encoders import CachedEncoder, FeatureCache, VisionEncoder
from isthmus.features import Features, Grid


@dataclasses.dataclass(frozen=True)
class Picture:
    """Noise, wider than high, fixed by its number."""

    number: int

    @property
    def key(self) -> str:
        return f"picture {self.number}"

    def load(self) -> Image.Image:
        noise = np.random.default_rng(self.number).integers(0, 255, (30, 40 + self.number, 3), dtype=np.uint8)
        return Image.fromarray(noise)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    folder = tmp_path_factory.mktemp("tower")
    save("clip", folder)
    return VisionEncoder(name=str(folder), image_size=24, layers=(-1, 1), class_token=True)


def test_images_are_encoded_once_and_shared(config: VisionEncoder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    first = CachedEncoder(config, cache)
    pictures = [Picture(number) for number in range(5)]
    before, plans = first.features(pictures[:3])
    assert first.encoder_calls == 3
    again, _ = first.features([pictures[2], pictures[0], pictures[2], pictures[4]])
    assert first.encoder_calls == 4
    assert torch.equal(again.tokens[[0, 1, 2]], before.tokens[[2, 0, 2]])
    assert torch.equal(again.levels[0][1], before.levels[0][0])
    assert [plan.size for plan in plans] == [(40, 30), (41, 30), (42, 30)]
    assert [plan.views for plan in plans] == [range(1), range(1, 2), range(2, 3)]

    second = CachedEncoder(dataclasses.replace(config), FeatureCache(tmp_path))
    shared, shared_plans = second.features(pictures[:3])
    assert second.encoder_calls == 0
    assert second._encoder is None  # the weights were never needed
    assert torch.equal(shared.tokens, before.tokens)
    assert shared_plans == plans
    assert (shared.grid, shared.prefix, shared.tokens.dtype) == (Grid(1, 3, 3), 1, torch.float32)


def test_features_are_the_encoders_own(config: VisionEncoder, tmp_path: Path) -> None:
    said, _ = CachedEncoder(config, FeatureCache(tmp_path, storage="float32")).features([Picture(1)])
    encoder = config.build()
    with torch.no_grad():
        alone = encoder(encoder.prepare(Picture(1).load()).pixels)
    torch.testing.assert_close(said.tokens, alone.tokens, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(said.levels[0], alone.levels[0], atol=1e-6, rtol=1e-5)


def test_features_do_not_depend_on_what_else_was_asked_for(config: VisionEncoder, tmp_path: Path) -> None:
    pictures = [Picture(number) for number in range(21)]
    together, _ = CachedEncoder(config, FeatureCache(tmp_path / "a")).features(pictures)
    turned = CachedEncoder(config, FeatureCache(tmp_path / "b"))
    turned.features(pictures[::-3])
    again, _ = turned.features(pictures)
    assert turned.encoder_calls == 21
    assert torch.equal(together.tokens, again.tokens)


def test_a_connector_can_learn_from_them(config: VisionEncoder, tmp_path: Path) -> None:
    for encoder in (CachedEncoder(config, FeatureCache(tmp_path)), CachedEncoder(config, None, views=0)):
        said, _ = encoder.features([Picture(1)])
        layer = torch.nn.Linear(16, 2)
        layer(said.tokens).sum().backward()
        assert layer.weight.grad is not None


def test_k_views_are_fixed_and_apart_from_the_plain_one(config: VisionEncoder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    plain = CachedEncoder(config, cache).features([Picture(1)])[0]
    three = CachedEncoder(config, cache, views=3)
    said = [three.features([Picture(1)], view)[0] for view in range(3)]
    assert three.encoder_calls == 3
    again = CachedEncoder(config, cache, views=3)
    assert all(torch.equal(again.features([Picture(1)], view)[0].tokens, said[view].tokens) for view in range(3))
    assert again.encoder_calls == 0
    tokens = [one.tokens for one in [plain, *said]]
    assert not any(torch.allclose(tokens[i], tokens[j]) for i in range(4) for j in range(i))
    four = CachedEncoder(config, cache, views=4)
    four.features([Picture(1)], 0)
    assert four.encoder_calls == 1  # the number of views is part of the key


def test_zero_views_encode_every_time_and_store_nothing(config: VisionEncoder, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    encoder = CachedEncoder(config, cache, views=0)
    first, second, crop = (encoder.features([Picture(1)], view)[0] for view in (0, 0, 17))
    assert encoder.encoder_calls == 3
    assert cache.size_bytes() == 0
    assert torch.equal(first.tokens, second.tokens)
    assert not torch.allclose(first.tokens, crop.tokens)


def test_a_picture_named_twice_is_encoded_once(config: VisionEncoder, tmp_path: Path) -> None:
    encoder = CachedEncoder(config, FeatureCache(tmp_path))
    said, plans = encoder.features([Picture(1), Picture(1)])
    assert encoder.encoder_calls == 1
    assert torch.equal(said.tokens[0], said.tokens[1])
    assert len(plans) == 2


def test_the_shape_needs_no_weights(config: VisionEncoder) -> None:
    encoder = CachedEncoder(config, None, views=0)
    assert encoder.shape == config.shape()
    assert encoder._encoder is None


def test_misuse_is_refused(config: VisionEncoder, tmp_path: Path) -> None:
    encoder = CachedEncoder(config, FeatureCache(tmp_path), views=2)
    refused = [
        (lambda: encoder.features([]), "at least one image"),
        (lambda: encoder.features([Picture(1)], 2), "view goes from 0 to 1, not 2"),
        (lambda: CachedEncoder(config, None, views=1), "a cache is needed"),
        (lambda: CachedEncoder(config, None, views=-1), "views=-1"),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


def test_an_unreadable_image_names_itself_and_loses_nothing(config: VisionEncoder, tmp_path: Path) -> None:
    class Broken:
        key = "broken"

        def load(self) -> Image.Image:
            raise ValueError("broken.png is truncated")

    encoder = CachedEncoder(config, FeatureCache(tmp_path))
    with pytest.raises(ValueError, match=r"broken.png is truncated"):
        encoder.features([Picture(1), Broken()])
    said: Features = encoder.features([Picture(1)])[0]
    assert said.tokens.shape == (1, 10, 16)
