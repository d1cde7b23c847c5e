"""Audio towers over windows of a sound: equal to the transformers models, in time order, padding marked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_ears import EARS, save_ear
from torch.utils.flop_counter import FlopCounterMode

from isthmus.encoders import AudioEncoder, CachedEncoder, FeatureCache, Untiled
from isthmus.encoders.audio import spectrogram, windows
from isthmus.features import Grid, Sound

WINDOW_S = 0.3
GRIDS = {"ast": (2, 5), "whisper": (1, 50), "clap": (2, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ears")
    for family in EARS:
        save_ear(family, made / family)
    return made


def noise(seconds: float, rate: int, seed: int = 0) -> Sound:
    samples = np.random.default_rng(seed).normal(0.0, 0.1, round(seconds * rate)).astype(np.float32)
    return Sound(samples=samples, rate=rate)


def ear(folder: Path, family: str = "ast", **changes: object) -> AudioEncoder:
    plain = AudioEncoder(name=str(folder / family), window_s=WINDOW_S, max_windows=3)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", list(EARS))
def test_every_family_hears_what_its_model_hears(folder: Path, family: str) -> None:
    config, model, rate = ear(folder, family), save_ear(family, folder / family), EARS[family][5]
    assert config.rate == rate
    tower = config.build()
    sound = noise(0.75, rate)  # two whole windows and a half one
    ready = tower.prepare(sound)
    assert ready.pixels.shape[:3] == (1, 3, 1)
    features = tower(ready.pixels)
    assert features.grid == config.shape().grid
    assert features.grid[1:] == GRIDS[family]
    assert features.tokens.shape == (1, features.grid.size, config.shape().width)
    assert features.valid is None
    for number, heard in enumerate(windows(sound.samples, round(WINDOW_S * rate), 3)):
        bins = spectrogram(tower.extractor, heard)
        with torch.no_grad():
            if family == "ast":
                alone = model(bins).last_hidden_state[0, 2:]
            elif family == "whisper":
                alone = model.encoder(bins).last_hidden_state[0]  # type: ignore[operator, union-attr]
            else:
                alone = model(bins[None]).last_hidden_state[0].flatten(1).T
        per_window = len(alone)
        torch.testing.assert_close(features.tokens[0, number * per_window : (number + 1) * per_window], alone)


@pytest.mark.parametrize("family", list(EARS))
def test_costs_are_those_of_the_tower(folder: Path, family: str) -> None:
    config = ear(folder, family)
    tower = config.build()
    assert config.parameters() == sum(one.numel() for one in tower.tower.parameters())
    tower.tower.set_attn_implementation("eager")  # type: ignore[operator]  # the counter knows no fused one on a CPU
    with FlopCounterMode(display=False) as counter:
        tower(torch.zeros_like(tower.prepare(noise(0.9, config.rate)).pixels))
    assert counter.get_total_flops() == config.flops()


def test_windows_follow_one_another_or_spread_evenly() -> None:
    samples = np.arange(100, dtype=np.float32)
    assert [(one[0], len(one)) for one in windows(samples, 40, 3)] == [(0, 40), (40, 40), (80, 20)]
    assert [(one[0], len(one)) for one in windows(samples, 20, 3)] == [(0, 20), (40, 20), (80, 20)]
    assert [(one[0], len(one)) for one in windows(samples, 10, 1)] == [(0, 10)]
    assert [(one[0], len(one)) for one in windows(samples, 200, 3)] == [(0, 100)]


def test_short_sounds_are_padded_and_said_so(folder: Path) -> None:
    config = ear(folder)
    tower = config.build()
    short, long = tower.prepare(noise(0.2, 16_000)), tower.prepare(noise(0.9, 16_000, seed=1))
    features = tower(torch.cat([short.pixels, long.pixels]))
    assert features.valid is not None
    assert features.valid.unflatten(1, (3, -1)).all(dim=-1).tolist() == [[True, False, False], [True, True, True]]
    assert bool((features.tokens[0][~features.valid[0]] == 0).all())
    torch.testing.assert_close(features.tokens[1:], tower(long.pixels).tokens)


@pytest.mark.parametrize("family", list(EARS))
def test_a_rest_shorter_than_a_frame_is_heard(folder: Path, family: str) -> None:
    rate = EARS[family][5]
    tower = ear(folder, family).build()
    whole = noise(WINDOW_S, rate)
    longer = replace(whole, samples=np.append(whole.samples, np.float32([0.1] * 20)))
    pixels = tower.prepare(longer).pixels
    assert torch.equal(pixels[:, 0], tower.prepare(whole).pixels[:, 0])
    assert pixels[:, 1].isfinite().all()
    assert pixels[:, 2].isnan().all()
    assert tower(pixels).tokens.isfinite().all()


def test_windows_may_be_views_and_one_token(folder: Path) -> None:
    config = ear(folder, window_views=True, pool="mean")
    assert (config.shape().grid, config.most_views()) == (Grid(1, 1, 1), 3)
    tower, whole = config.build(), ear(folder).build()
    sound = noise(0.5, 16_000)
    ready = tower.prepare(sound)
    assert (ready.tiles, config.plan_loaded(sound).views) == (Grid(2, 1, 1), range(2))
    tokens = tower(ready.pixels).tokens
    map_of = whole(whole.prepare(sound).pixels).tokens.unflatten(1, (3, -1))[0, :2]
    torch.testing.assert_close(tokens[:, 0], map_of.mean(dim=1))


class Recording:
    """A sound in memory."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds, self.seed = seconds, seed

    @property
    def key(self) -> str:
        return f"{self.seconds} {self.seed}"

    def load(self) -> Sound:
        return noise(self.seconds, 16_000, self.seed)


@pytest.mark.parametrize("window_views", [False, True])
def test_features_of_sounds_are_kept(folder: Path, tmp_path: Path, window_views: bool) -> None:
    cache = FeatureCache(tmp_path / "kept", storage="float32")
    encoder = CachedEncoder(ear(folder, window_views=window_views), cache)
    sounds = [Untiled(Recording(0.2, 1)), Untiled(Recording(0.9, 2)), Untiled(Recording(0.5, 3))]
    first, plans = encoder.features(sounds)
    again, same = encoder.features(sounds)
    assert (encoder.encoder_calls, plans) == (3, same)
    assert torch.equal(first.tokens, again.tokens)
    counts = [1, 3, 2]
    if window_views:
        assert [len(plan.views) for plan in plans] == counts
        assert first.valid is None
    else:
        assert first.valid is not None
        assert first.valid.unflatten(1, (3, -1)).any(-1).sum(1).tolist() == counts
        tower = ear(folder).build()
        pixels = torch.cat([tower.prepare(sound.load()).pixels for sound in sounds])  # type: ignore[arg-type]
        with torch.no_grad():
            direct = tower(pixels)
        torch.testing.assert_close(first.tokens, direct.tokens)
        assert torch.equal(first.valid, direct.valid)  # type: ignore[arg-type]


def test_misfits_are_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    tower = ear(folder).build()
    with pytest.raises(ValueError, match=r"at 8000 Hz.*hears 16000 Hz.*FileSound\(rate=16000\)"):
        tower.prepare(noise(0.5, 8_000))
    with pytest.raises(ValueError, match="Images need a VisionEncoder"):
        tower.prepare(Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match=r"hears 0\.4 s at a time and would cut the rest"):
        ear(folder, window_s=0.5).shape()
    with pytest.raises(ValueError, match="there is one at least"):
        ear(folder, max_windows=0)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="'vit' model, not an audio tower"):
        AudioEncoder(name=str(tmp_path)).shape()
