"""Views of images of any size: literal cuts, promises that every tiling keeps, and bounded memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_towers import save
from torch.nn import functional

from isthmus.connectors.arrange import DeepStack
from isthmus.data.video import mosaic
from isthmus.encoders import TILINGS, CachedEncoder, FeatureCache, TilingConfig, VisionEncoder
from isthmus.encoders.tiles import (
    DEEPSTACK_GRIDS,
    LLAVA15_HD_GRIDS,
    ONEVISION_GRIDS,
    AnyresTiles,
    DynamicTiles,
    FinerTiles,
    OneView,
    SubImages,
    TokenPackerTiles,
)
from isthmus.features import Grid

SIZES = ((24, 24), (100, 30), (31, 97), (640, 480), (1, 500), (1_344, 896))
SIDE = 24


@pytest.fixture(scope="module")
def eye(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    """A tiny tower of 3 x 3 patches."""
    folder = tmp_path_factory.mktemp("eye")
    save("clip", folder)
    return VisionEncoder(name=str(folder), image_size=SIDE)


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A small random picture enlarged to this size."""
    noise = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.numpy()).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", TILINGS.values(), ids=TILINGS)
def test_views_are_those_of_the_plan(made: type[TilingConfig], size: tuple[int, int], eye: VisionEncoder) -> None:
    config = replace(eye, tiles=made())
    plan, ready = config.plan(size, 5), config.build().prepare(picture(size))
    assert (ready.size, ready.tiles, ready.whole) == (plan.size, plan.tiles, plan.whole)
    assert ready.pixels.shape == (len(plan.views), 3, SIDE, SIDE)
    assert plan.views.start == 5
    assert len(plan.views) <= config.most_views()
    assert torch.isfinite(ready.pixels).all()


def test_dynamic_tiles_of_the_paper() -> None:
    """InternVL 1.5's own example: 800 x 1300 becomes 2 x 3 tiles of 448 px."""
    cut = DynamicTiles().cut((800, 1_300), 448)
    assert (cut.grid, cut.resized, cut.whole, cut.num_views) == (Grid(1, 3, 2), (896, 1_344), "last", 7)
    assert DynamicTiles().cut((448, 448), 448).num_views == 1


def test_forty_tiles_at_test() -> None:
    assert DynamicTiles(max_tiles=40).cut((4_000, 2_500), 448).num_views == 41


def test_sub_images_of_mm1() -> None:
    cut = SubImages().cut((1_344, 1_000), 672)
    assert (cut.grid, cut.resized, cut.whole, cut.num_views) == (Grid(1, 2, 2), (1_344, 1_344), "first", 5)
    assert SubImages(whole="last").cut((10, 10), 8).boxes(8)[3] == (8, 8, 16, 16)


def test_grids_of_llava_hd_and_onevision() -> None:
    assert {(1, 1), (1, 6), (6, 1), (2, 2), (2, 3), (3, 2)} <= set(LLAVA15_HD_GRIDS)
    assert max(columns * rows for columns, rows in LLAVA15_HD_GRIDS) == 6
    assert len(ONEVISION_GRIDS) == 36
    cut = AnyresTiles(grids=LLAVA15_HD_GRIDS).cut((600, 400), 224)
    assert (cut.grid, cut.resized, cut.offset) == (Grid(1, 2, 3), (672, 448), (0, 0))


def test_the_whole_stands_where_the_tiling_says(eye: VisionEncoder) -> None:
    image = picture((96, 48))
    whole = eye.build().prepare(image).pixels[0]
    first = replace(eye, tiles=AnyresTiles(grids=((2, 1),))).build().prepare(image).pixels
    last = replace(eye, tiles=DynamicTiles()).build().prepare(image).pixels
    torch.testing.assert_close(first[0], whole)
    torch.testing.assert_close(last[-1], whole)
    assert not torch.equal(first[1], whole)


def test_tiles_are_the_picture_in_reading_order(eye: VisionEncoder) -> None:
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    for number, colour in enumerate(("red", "lime", "blue", "white")):
        image.paste(Image.new("RGB", (SIDE, SIDE), colour), (number % 2 * SIDE, number // 2 * SIDE))
    pixels = replace(eye, tiles=SubImages(whole="none")).build().prepare(image).pixels
    plain = [eye.build().prepare(Image.new("RGB", (SIDE, SIDE), one)).pixels[0] for one in ("red", "lime", "blue")]
    for view, wanted in zip(pixels[:3], plain, strict=True):
        torch.testing.assert_close(view, wanted)


def test_the_thumbnail_of_tokenpacker_is_made_from_the_padded_canvas(eye: VisionEncoder) -> None:
    config = replace(eye, tiles=TokenPackerTiles())
    pixels = config.build().prepare(Image.new("RGB", (90, 30), "white")).pixels
    white = eye.build().prepare(Image.new("RGB", (SIDE, SIDE), "white")).pixels[0]
    torch.testing.assert_close(pixels[-1][:, :4], white[:, :4])
    black = eye.build().prepare(Image.new("RGB", (SIDE, SIDE), "black")).pixels[0]
    torch.testing.assert_close(pixels[-1][:, 9:], black[:, 9:])


def test_finer_crops_follow_all_views(eye: VisionEncoder) -> None:
    """The crops of the first view show what the view shows: averaged in squares they are the view again."""
    config = replace(eye, tiles=FinerTiles(tiles=SubImages()))
    ready = config.build().prepare(picture((96, 90)))
    assert (ready.tiles, ready.whole, len(ready.pixels)) == (Grid(1, 2, 2), "first", 25)
    assert config.most_views() == 25
    for view in range(5):
        crops = ready.pixels[5 + 4 * view : 9 + 4 * view]
        large = torch.cat([torch.cat(list(crops[:2]), dim=-1), torch.cat(list(crops[2:]), dim=-1)], dim=-2)
        assert float((functional.avg_pool2d(large, 2) - ready.pixels[view]).abs().mean()) < 0.1
    alone = replace(eye, tiles=FinerTiles(tiles=OneView())).plan((96, 90))
    assert (len(alone.views), alone.whole) == (5, "none")


def test_the_tiles_of_a_mosaic_are_the_frames_of_the_video(eye: VisionEncoder) -> None:
    frames = [picture((SIDE, SIDE), seed) for seed in range(6)]
    laid = mosaic(frames, 3)
    tower = replace(eye, tiles=AnyresTiles(grids=((3, 2),), pad=False)).build()
    ready, alone = tower.prepare(laid), [replace(eye).build().prepare(frame).pixels[0] for frame in frames]
    assert (ready.tiles, ready.whole) == (Grid(1, 2, 3), "first")
    assert torch.equal(ready.pixels[1:], torch.stack(alone))
    split = DeepStack(groups=6).split(tower.config.plan(laid.size))
    assert (split.coarse, split.crops) == ((0,), ((1, 2, 3, 4, 5, 6),))


def test_crops_of_deepstack_are_stretched_over_the_grid() -> None:
    cut = AnyresTiles(grids=DEEPSTACK_GRIDS, pad=False).cut((700, 500), 336)
    assert (cut.grid, cut.resized, cut.offset, cut.num_views) == (Grid(1, 2, 2), (672, 672), (0, 0), 5)


def test_finer_crops_need_the_whole_first() -> None:
    with pytest.raises(ValueError, match="puts it last"):
        FinerTiles(tiles=DynamicTiles()).cut((900, 600), 448)


def test_chunks_change_nothing(eye: VisionEncoder) -> None:
    tiled = replace(eye, tiles=DynamicTiles(max_tiles=9), layers=(-1, 1))
    pixels = tiled.build().prepare(picture((300, 290))).pixels
    assert len(pixels) == 10
    whole = tiled.build()(pixels)
    few = replace(tiled, views_at_once=3).build()(pixels)
    torch.testing.assert_close(few.tokens, whole.tokens)
    torch.testing.assert_close(few.levels, whole.levels)
    assert tiled.fingerprint() == replace(tiled, views_at_once=3).fingerprint()


def kept_bytes(config: VisionEncoder, pixels: torch.Tensor) -> int:
    """What autograd keeps of a forward pass through a tower that learns."""
    tower, total = config.build(), 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tower(pixels).tokens.sum()
    return total


def test_a_learning_tower_keeps_little_more_than_the_pixels(eye: VisionEncoder) -> None:
    pixels = torch.rand(12, 3, SIDE, SIDE)
    again = replace(eye, checkpointing=True, views_at_once=2)
    assert kept_bytes(again, pixels) <= pixels.numel() + 6
    assert kept_bytes(eye, pixels) > 4 * pixels.numel()
    plain, recomputed = eye.build(), again.build()
    for tower in (plain, recomputed):
        tower(pixels).tokens.square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_forty_tiles_do_not_take_forty_times_the_memory(eye: VisionEncoder) -> None:
    """No more views than `views_at_once` are ever inside the tower; what stays of the others are their features."""
    config = replace(eye, tiles=DynamicTiles(min_tiles=40, max_tiles=40), views_at_once=6)
    tower, inside = config.build(), []
    tower.tower.register_forward_pre_hook(
        lambda module, args, kwargs: inside.append(len(kwargs.get("pixel_values", *args[:1]))), with_kwargs=True
    )
    with torch.inference_mode():
        features = tower(tower.prepare(picture((640, 480))).pixels)
    assert inside == [6, 6, 6, 6, 6, 6, 5]
    assert len(features.tokens) == 41
    assert features.tokens.untyped_storage().nbytes() == features.tokens.nbytes


def test_kept_features_of_tiles(eye: VisionEncoder, tmp_path: Path) -> None:
    class Kept:
        def __init__(self, size: tuple[int, int], seed: int) -> None:
            self.size, self.seed = size, seed

        @property
        def key(self) -> str:
            return f"{self.size} {self.seed}"

        def load(self) -> Image.Image:
            return picture(self.size, self.seed)

    images = [Kept((48, 24), 1), Kept((24, 24), 2), Kept((100, 90), 3)]
    config = replace(eye, tiles=AnyresTiles())
    cached = CachedEncoder(config, FeatureCache(tmp_path, storage="float32"), chunk=2)
    features, plans = cached.features(images)
    again, _ = cached.features(images)
    assert cached.encoder_calls == 3
    assert torch.equal(features.tokens, again.tokens)
    assert sum(len(plan.views) for plan in plans) == len(features.tokens)
    alone, plan = CachedEncoder(config, None, views=0).features(images[2:])
    torch.testing.assert_close(alone.tokens, features.tokens[plans[2].views.start :])
    assert plan[0].size == (100, 90)
    other = CachedEncoder(replace(config, tiles=OneView()), FeatureCache(tmp_path, storage="float32"))
    assert len(other.features(images)[1][0].views) == 1


@pytest.mark.parametrize(
    ("made", "options", "said"),
    [
        (DynamicTiles, {"min_tiles": 3, "max_tiles": 2}, "min_tiles <= max_tiles"),
        (AnyresTiles, {"grids": ()}, "must list"),
        (AnyresTiles, {"grids": ((0, 2),)}, "must list"),
        (SubImages, {"columns": 0}, "1 or more"),
        (TokenPackerTiles, {"max_tiles": 12}, "9, 16 and 25"),
        (FinerTiles, {"factor": 1}, "at least 2 times finer"),
    ],
)
def test_impossible_tilings_are_refused(made: type[TilingConfig], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(**options)


def test_no_view_at_once_is_refused(eye: VisionEncoder) -> None:
    with pytest.raises(ValueError, match="lets no view through"):
        replace(eye, views_at_once=0).shape()
