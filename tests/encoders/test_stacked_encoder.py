"""DeepStack-V: crops added inside the tower, equal to a pass written out block by block."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_towers import save
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isthmus.data.images import FileImage
from isthmus.encoders import CachedEncoder, FeatureCache, StackedVisionEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles, OneView

GRIDS = ((2, 1), (1, 2))
FAMILIES = ("clip", "siglip", "dinov2-registers", "vit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stacked")
    for family in FAMILIES:
        save(family, made / family)
    return made


def stacked(folder: Path, family: str = "clip", **changes: Any) -> StackedVisionEncoder:
    tower = VisionEncoder(name=str(folder / family), image_size=24, tiles=AnyresTiles(grids=GRIDS, pad=False))
    return replace(StackedVisionEncoder(tower=tower, groups=2, start_block=1), **changes)


def picture(wide: int, high: int, seed: int = 0) -> Image.Image:
    torch.manual_seed(seed)
    return Image.fromarray((torch.rand(high, wide, 3) * 255).byte().numpy())


def by_hand(tower: Any, pixels: Tensor, rows: int, columns: int) -> Tensor:
    """CLIP's blocks one after another, crop tokens picked one by one."""
    model = getattr(tower, "vision_model", tower)
    hidden = model.pre_layrnorm(model.embeddings(pixels))
    first, second, third = model.encoder.layers

    def through(block: Any, value: Tensor) -> Tensor:
        said = block(value, None)
        return said[0] if isinstance(said, tuple) else said

    hidden = through(first, hidden)
    whole, crops = hidden[:1], hidden[1:, 1:].reshape(rows, columns, 3, 3, -1)
    for number, block in enumerate((second, third)):
        whole = whole.clone()
        down, right = divmod(number, columns)
        for row in range(3):
            for column in range(3):
                high, wide = row * rows + down, column * columns + right
                token = crops[high // 3, wide // 3, high % 3, wide % 3]
                whole[0, 1 + 3 * row + column] += token
        whole = through(block, whole)
    return whole[:, 1:]


@pytest.mark.parametrize(("size", "cells"), [((60, 20), (1, 2)), ((20, 60), (2, 1))])
def test_groups_enter_block_by_block(folder: Path, size: tuple[int, int], cells: tuple[int, int]) -> None:
    config = stacked(folder)
    encoder = config.build()
    ready = encoder.prepare(picture(*size))
    assert ready.pixels.shape == (1, 5, 3, 24, 24)
    real = ready.pixels[0][~ready.pixels[0, :, 0, 0, 0].isnan()]
    assert len(real) == 3
    with torch.no_grad():
        features = encoder(ready.pixels)
        expected = by_hand(encoder.tower.tower, real, *cells)
    assert features.tokens.shape == (1, 9, 16)
    torch.testing.assert_close(features.tokens, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_stacks_and_without_crops_is_the_tower(folder: Path, family: str) -> None:
    config = stacked(folder, family)
    encoder, plain = config.build(), config.tower.build()
    pixels = torch.cat([encoder.prepare(picture(60, 20)).pixels, encoder.prepare(picture(20, 60, 1)).pixels])
    alone = pixels.clone()
    alone[:, 1:] = float("nan")
    with torch.no_grad():
        both = encoder(pixels).tokens
        torch.testing.assert_close(encoder(alone).tokens, plain(pixels[:, 0]).tokens, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both[1:], encoder(pixels[1:]).tokens, atol=1e-5, rtol=1e-4)
        assert (both - encoder(alone).tokens).abs().max() > 1e-3


def test_it_learns_from_its_crops(folder: Path) -> None:
    encoder = stacked(folder).build()
    pixels = encoder.prepare(picture(60, 20)).pixels.requires_grad_()
    encoder(pixels).tokens.pow(2).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad[0, 1].abs().sum() > 0
    assert pixels.grad[0, 2].abs().sum() > 0
    assert all(weight.grad is not None for name, weight in encoder.named_parameters() if ".layers." in name)


def test_gradients_are_equal_when_blocks_are_computed_again(folder: Path) -> None:
    """Images cut in other cells, and one without crops, each computed again as it was seen."""
    pixels = torch.cat(
        [stacked(folder).build().prepare(picture(*size)).pixels for size in ((60, 20), (20, 60), (9, 9))]
    )
    pixels[2, 1:] = float("nan")
    found: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        config = stacked(folder)
        encoder = replace(config, tower=replace(config.tower, checkpointing=checkpointing)).build()
        encoder(pixels).tokens.pow(2).sum().backward()
        found.append({name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None})
    assert any(".layers.0." in name for name in found[0])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_costs_are_counted(folder: Path) -> None:
    config = stacked(folder)
    encoder = config.build()
    exact = sdpa_kernel(SDPBackend.MATH)  # fused attention on the CPU is not counted
    with exact, FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(encoder.prepare(picture(60, 20)).pixels)
    assert config.flops() == counter.get_total_flops()
    assert config.shape() == config.tower.shape()
    assert config.plan((60, 20)).views == range(1)


def test_features_are_kept(folder: Path, tmp_path: Path) -> None:
    picture(60, 20).save(tmp_path / "a.png")
    refs = [FileImage(root=str(tmp_path), path="a.png")]
    config = stacked(folder)
    cached = CachedEncoder(config, FeatureCache(tmp_path / "cache"))
    first, plans = cached.features(refs)
    again, _ = cached.features(refs)
    assert torch.equal(first.tokens, again.tokens)
    assert len(plans[0].views) == 1
    with torch.no_grad():
        encoder = config.build()
        seen = encoder(encoder.prepare(refs[0].load()).pixels).tokens
        torch.testing.assert_close(first.tokens, seen, atol=2e-3, rtol=2e-3)  # kept in half precision


def test_misfits_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="layers are chosen from 4 on, but layer 3 came"):
        stacked(folder, start_block=2).shape()
    with pytest.raises(ValueError, match="up to 2 crops, more than groups=1"):
        stacked(folder, groups=1).shape()
    whole = stacked(folder)
    with pytest.raises(ValueError, match=r"OneView cuts none\. Use AnyresTiles"):
        replace(whole, tower=replace(whole.tower, tiles=OneView())).shape()
    bare = replace(whole, tower=replace(whole.tower, tiles=AnyresTiles(grids=GRIDS, whole=False)))
    with pytest.raises(ValueError, match="choose a tiling that keeps it"):
        bare.build().prepare(picture(60, 20))
