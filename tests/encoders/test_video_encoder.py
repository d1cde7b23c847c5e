"""Clips through a vision tower: frames in time order, pooling in time, padding marked, images as clips of one frame."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_towers import save

from isthmus.connectors import CONNECTORS, AveragePoolConfig, MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.base import ConnectorConfig
from isthmus.connectors.video_qformer import VideoQFormerConfig
from isthmus.encoders import CachedEncoder, FeatureCache, Untiled, VideoEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.features import Clip, Features, Grid, LLMShape, Plan, Sound

TARGET = LLMShape(embedding_width=20, hidden_width=20, num_layers=2)
QFORMER = QFormerConfig(num_queries=3, width=16, layers=2, heads=2, ffn_width=24)


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    folder = tmp_path_factory.mktemp("eye")
    save("clip", folder)
    return VisionEncoder(name=str(folder), image_size=32)


def picture(seed: int) -> Image.Image:
    draw = torch.Generator().manual_seed(seed)
    return Image.frombytes("RGB", (30, 20), bytes(torch.randint(0, 256, (1_800,), generator=draw).tolist()))


def clip(*seeds: int) -> Clip:
    return Clip(
        frames=tuple(picture(seed) for seed in seeds), times_s=tuple(float(place) for place in range(len(seeds)))
    )


class Footage:
    """A clip in memory."""

    def __init__(self, *seeds: int) -> None:
        self.seeds = seeds

    @property
    def key(self) -> str:
        return f"footage {self.seeds}"

    def load(self) -> Clip:
        return clip(*self.seeds)


@pytest.mark.parametrize("class_token", [False, True])
def test_frames_stand_in_time_order(eye: VisionEncoder, class_token: bool) -> None:
    single = replace(eye, class_token=class_token, layers=(-1, 1))
    config = VideoEncoder(tower=single, max_frames=3)
    tower, frame = config.build(), single.build()
    assert (config.shape().grid, config.shape().prefix) == (Grid(3, 4, 4), 3 * class_token)
    assert config.flops() == 3 * single.flops()
    features = tower(tower.prepare(clip(1, 2, 3)).pixels)
    alone = [frame(frame.prepare(picture(seed)).pixels) for seed in (1, 2, 3)]
    torch.testing.assert_close(features.patches, torch.cat([one.patches for one in alone], dim=1))
    torch.testing.assert_close(features.levels[0], torch.cat([one.levels[0] for one in alone], dim=1))
    own = [one.tokens[:, : one.prefix] for one in alone]
    torch.testing.assert_close(features.tokens[:, : features.prefix], torch.cat(own, dim=1))
    assert features.valid is None


def test_pooling_is_the_mean_of_neighbours_without_padding(eye: VisionEncoder) -> None:
    tower, frame = VideoEncoder(tower=eye, max_frames=4, pool=2).build(), eye.build()
    one, two, three = (frame(frame.prepare(picture(seed)).pixels).tokens for seed in (1, 2, 3))
    features = tower(tower.prepare(clip(1, 2, 3)).pixels)
    assert features.grid == Grid(2, 4, 4)
    torch.testing.assert_close(features.tokens, torch.cat([(one + two) / 2, three], dim=1))
    assert features.valid is None
    half = tower(tower.prepare(clip(1)).pixels)
    torch.testing.assert_close(half.tokens[:, :16], one)
    assert half.valid is not None
    assert half.valid.sum() == 16


@pytest.mark.parametrize(
    "connector",
    [MlpConfig(), AveragePoolConfig(side=2), PixelShuffleConfig(factor=2), QFORMER, VideoQFormerConfig(image=QFORMER)],
    ids=lambda one: type(one).__name__,
)
def test_any_connector_reads_clips(eye: VisionEncoder, connector: ConnectorConfig) -> None:
    assert type(connector) in CONNECTORS.values()
    config = VideoEncoder(tower=eye, max_frames=2)
    tower, made = config.build(), connector.build(config.shape(), TARGET).eval()
    both = tower(torch.cat([tower.prepare(clip(1, 2)).pixels, tower.prepare(clip(3, 4)).pixels]))
    tokens = made(both).tokens
    assert tokens.shape == (2, connector.num_tokens(config.shape().grid), 20)
    torch.testing.assert_close(tokens[1:], made(tower(tower.prepare(clip(3, 4)).pixels)).tokens)


def test_a_short_clip_is_what_it_is_without_its_padding(eye: VisionEncoder) -> None:
    connector = VideoQFormerConfig(image=QFORMER, num_queries=4)
    long, short = VideoEncoder(tower=eye, max_frames=4), VideoEncoder(tower=eye, max_frames=1)
    torch.manual_seed(0)
    made = connector.build(long.shape(), TARGET).eval()
    padded = long.build()
    features = padded(padded.prepare(picture(5)).pixels)  # an image is a clip of one frame
    alone = short.build()(short.build().prepare(picture(5)).pixels)
    torch.testing.assert_close(made(features).tokens, made(alone).tokens, rtol=1e-4, atol=1e-5)
    mlp = MlpConfig().build(long.shape(), TARGET)
    with pytest.raises(ValueError, match="does not look around padding"):
        mlp(features)


def test_features_of_clips_are_kept(eye: VisionEncoder, tmp_path: Path) -> None:
    config = VideoEncoder(tower=eye, max_frames=3)
    encoder = CachedEncoder(config, FeatureCache(tmp_path / "kept", storage="float32"))
    clips = [Untiled(Footage(1, 2, 3)), Untiled(Footage(4))]
    first, plans = encoder.features(clips)
    again, _ = encoder.features(clips[::-1])
    assert encoder.encoder_calls == 2
    assert plans == tuple(Plan(size=(30, 20), tiles=Grid(1, 1, 1), views=range(row, row + 1)) for row in (0, 1))
    assert torch.equal(again.tokens[[1, 0]], first.tokens)
    direct = config.build()
    with torch.no_grad():
        whole = direct(torch.cat([direct.prepare(one.load()).pixels for one in clips]))  # type: ignore[arg-type]
    torch.testing.assert_close(first.tokens, whole.tokens)
    assert torch.equal(first.valid, whole.valid)  # type: ignore[arg-type]


def test_frames_are_views_of_an_image_encoder_and_never_tiled(eye: VisionEncoder, tmp_path: Path) -> None:
    tiled = replace(eye, tiles=AnyresTiles(grids=((2, 1),)))
    encoder = CachedEncoder(tiled, FeatureCache(tmp_path / "kept", storage="float32"))
    features, plans = encoder.features([Untiled(Footage(1, 2, 3)), Still(7), Untiled(Still(7))])
    assert [(plan.tiles, plan.views, plan.whole) for plan in plans] == [
        (Grid(3, 1, 1), range(3), "none"),
        (Grid(1, 1, 2), range(3, 6), "first"),
        (Grid(1, 1, 1), range(6, 7), "none"),
    ]
    whole: Features = eye.build()(eye.build().prepare(picture(2)).pixels)
    torch.testing.assert_close(features.tokens[1:2], whole.tokens)
    torch.testing.assert_close(features.tokens[6], features.tokens[3])


class Still:
    """An image in memory."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @property
    def key(self) -> str:
        return f"still {self.seed}"

    def load(self) -> Image.Image:
        return picture(self.seed)


def test_misfits_are_refused_with_the_way_out(eye: VisionEncoder) -> None:
    tower = VideoEncoder(tower=eye, max_frames=2).build()
    with pytest.raises(ValueError, match=r"clip of 3 frames.*UniformFrames\(num=2\)"):
        tower.prepare(clip(1, 2, 3))
    silence = Sound(samples=torch.zeros(9).numpy(), rate=8_000)
    for encoder in (tower, eye.build()):
        with pytest.raises(ValueError, match="Sounds need an AudioEncoder"):
            encoder.prepare(silence)
    for wrong in ({"max_frames": 0}, {"pool": 0}, {"max_frames": 3, "pool": 2}):
        with pytest.raises(ValueError, match="a multiple of pool"):
            VideoEncoder(tower=eye, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every frame is a view"):
        VideoEncoder(tower=replace(eye, tiles=AnyresTiles()))
