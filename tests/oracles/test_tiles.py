"""Which tiles an image is cut into, to the pixel: tables and pictures of the public code."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from einops import rearrange
from oracle_files import Oracle, oracles, same_row, tabled
from PIL import Image
from torch import Tensor
from torch.nn import functional

from isthmus.connectors.arrange import Anyres, Separated
from isthmus.encoders import VisionEncoder
from isthmus.encoders.pixels import Normalisation, expand_to_square
from isthmus.encoders.positions import interpolate_positions
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles, TokenPackerTiles, dynamic, make_views, tokenpacker_hd
from isthmus.encoders.tiles.base import Cut, on_canvas
from isthmus.encoders.tiles.dynamic import grids
from isthmus.features import Grid, Plan

BICUBIC = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resample=Image.Resampling.BICUBIC)

GIVEN = {"width", "height", "pinpoints", "tile", "patches_per_side", "max_num_patches"}
"""Columns of the anyres tables that ask."""


def picture(values: Tensor) -> Image.Image:
    return Image.fromarray(values.numpy().astype(np.uint8))


def values(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, dtype=np.int64))


def plan(cut: Cut, size: tuple[int, int], side: int) -> Plan:
    """As an encoder with `side` x `side` tokens a view makes it."""
    return Plan(size=size, tiles=cut.grid, views=range(cut.num_views), whole=cut.whole, tokens=Grid(1, side, side))


def other_order(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """The grids of one size the other way round."""
    turned = grids(min_tiles, max_tiles)[::-1]
    return tuple(sorted(turned, key=lambda grid: grid[0] * grid[1]))


@oracles("internvl_tiles")
def test_dynamic_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle(name)
    for key, order in oracle.info["target_ratio_order"].items():
        low, high = (int(part) for part in key.split("-"))
        assert [list(grid) for grid in grids(low, high)] == order, key
    for case in oracle.info["cases"]:
        side = case["image_size"]
        tiling = DynamicTiles(
            min_tiles=case["min_num"], max_tiles=case["max_num"], thumbnail=bool(case["use_thumbnail"])
        )
        cut = tiling.cut((case["width"], case["height"]), side)
        with monkeypatch.context() as patched:
            patched.setattr(dynamic, "grids", other_order)
            turned = tiling.cut((case["width"], case["height"]), side)
        boxes = cut.boxes(side)
        found = {
            "cols": cut.grid.columns,
            "rows": cut.grid.rows,
            "resized": list(cut.resized),
            "blocks": cut.grid.size,
            "num_images": cut.num_views,
            "thumbnail": cut.whole == "last",
            "first_box": list(boxes[0]),
            "last_box": list(boxes[-1]),
            "order_dependent": turned.grid != cut.grid,
        }
        asked = ("width", "height", "min_num", "max_num", "image_size", "use_thumbnail")
        same_row(found, case, given=asked)
        assert cut.num_views <= tiling.most_views
    tabled(name, len(oracle.info["cases"]))


@oracles("internvl_tiles_pixels")
def test_dynamic_tiles_of_a_picture(name: str) -> None:
    with Oracle(name) as oracle:
        config = oracle.config
        tiling = DynamicTiles(
            min_tiles=config["min_num"], max_tiles=config["max_num"], thumbnail=config["use_thumbnail"]
        )
        image = picture(oracle.tensors["inputs/image"])
        views, _ = make_views(image, tiling, config["image_size"], "squash", BICUBIC)
        oracle.check("outputs/tiles", torch.stack([values(view) for view in views]), atol=1.0, rtol=0.0)


def anyres_case(case: dict[str, Any], grids_wh: list[list[int]]) -> None:
    tile, side = case["tile"], case["patches_per_side"]
    size = (case["width"], case["height"])
    tiling = AnyresTiles(grids=tuple((width // tile, height // tile) for width, height in grids_wh))
    cut = tiling.cut(size, tile)
    laid = plan(cut, size, side)
    kept, theirs = Anyres().map_of(laid), Anyres(digits=7)
    found = {
        "best_resolution": [cut.grid.columns * tile, cut.grid.rows * tile],
        "grid_w": cut.grid.columns,
        "grid_h": cut.grid.rows,
        "resized_in_canvas": list(cut.resized),
        "paste_xy": list(cut.offset),
        "num_crops_with_base": cut.num_views,
        "feature_h": cut.grid.rows * side,
        "feature_w": cut.grid.columns * side,
        "unpadded_h": kept.rows,
        "unpadded_w": kept.columns,
        "tokens_spatial_unpad": Anyres().num_tokens(laid, side * side),
        "tokens_spatial": Anyres(unpad=False, newline=False).num_tokens(laid, side * side),
        "transformers_best_resolution": [cut.grid.columns * tile, cut.grid.rows * tile],
        "transformers_unpadded_h": theirs.map_of(laid).rows,
        "transformers_unpadded_w": theirs.map_of(laid).columns,
        "transformers_tokens": theirs.num_tokens(laid, side * side),
    }
    same_row({**found, "variants_differ": differ(found)}, case, given=GIVEN)


def differ(found: dict[str, Any]) -> bool:
    """Whether rounding in `transformers`' way leaves other rows, columns or tokens."""
    ours = {"tokens": "tokens_spatial_unpad"} if "tokens_spatial_unpad" in found else {}
    names = ("unpadded_h", "unpadded_w", "tokens")
    return any(found[ours.get(name, name)] != found[f"transformers_{name}"] for name in names)


@oracles("llava_anyres_tables")
def test_anyres_tiles_and_counts(name: str) -> None:
    oracle = Oracle(name)
    for case in oracle.info["cases"]:
        anyres_case(case, oracle.info["pinpoints_wh"][case["pinpoints"]])
    tabled(name, len(oracle.info["cases"]))


@oracles("llava_anyres_pixels")
def test_anyres_tiles_of_a_picture(name: str) -> None:
    with Oracle(name) as oracle:
        side, (wide, high) = oracle.config["patch"], oracle.config["target_wh"]
        image = picture(oracle.tensors["inputs/image"])
        tiling = AnyresTiles(grids=((wide // side, high // side),), whole=False)
        views, cut = make_views(image, tiling, side, "squash", BICUBIC)
        canvas = on_canvas(image, cut, side, Image.Resampling.BICUBIC)
        oracle.check("outputs/padded", values(canvas), atol=1.0, rtol=0.0)
        oracle.check("outputs/patches", torch.stack([values(view) for view in views]), atol=1.0, rtol=0.0)


@oracles("llava_expand2square")
def test_padding_to_a_square(name: str) -> None:
    with Oracle(name) as oracle:
        for colour, background in oracle.config["backgrounds"].items():
            for number in range(len(oracle.config["sizes_wh"])):
                square = expand_to_square(picture(oracle.tensors[f"inputs/image_{number}"]), tuple(background))
                oracle.check(f"outputs/square_{colour}_{number}", values(square), atol=0.0, rtol=0.0)


def onevision_case(case: dict[str, Any], grids_wh: list[list[int]]) -> None:
    tile = case.get("tile", math.gcd(*(length for size in grids_wh for length in size)))
    side = case.get("patches_per_side", tile // 14)
    size, tokens = (case["width"], case["height"]), side * side
    cut = AnyresTiles(grids=tuple((width // tile, height // tile) for width, height in grids_wh)).cut(size, tile)
    laid = plan(cut, size, side)
    ours = Anyres(max_tiles=case["max_num_patches"])
    theirs = Anyres(max_tiles=case["max_num_patches"], digits=7)
    kept = ours.map_of(laid)
    found = {
        "best_resolution": [cut.grid.columns * tile, cut.grid.rows * tile],
        "tile_cols": cut.grid.columns,
        "tile_rows": cut.grid.rows,
        "unpadded_h": kept.rows,
        "unpadded_w": kept.columns,
        "ratio": round(math.sqrt(kept.rows * kept.columns / (case["max_num_patches"] * tokens)), 9),
        "shrunk": (kept.final_rows, kept.final_columns) != (kept.rows, kept.columns),
        "final_h": kept.final_rows,
        "final_w": kept.final_columns,
        "tokens": ours.num_tokens(laid, tokens),
        "transformers_unpadded_h": theirs.map_of(laid).rows,
        "transformers_unpadded_w": theirs.map_of(laid).columns,
        "transformers_tokens": theirs.num_tokens(laid, tokens),
    }
    same_row({**found, "variants_differ": differ(found)}, case, given=GIVEN)


@oracles("llava_onevision_tables")
def test_onevision_tiles_and_counts(name: str) -> None:
    oracle = Oracle(name)
    for case in oracle.info["cases"]:
        names = oracle.info["pinpoints_wh"][case["pinpoints"]]
        onevision_case(case, names)
    tabled(name, len(oracle.info["cases"]))


@oracles("tokenpacker_hd_tiles")
def test_tokenpacker_tiles_and_counts(name: str) -> None:
    oracle = Oracle(name)
    for most, listed in oracle.info["grids"].items():
        assert [list(grid) for grid in tokenpacker_hd.grids(int(most))] == listed
    for case in oracle.info["cases"]:
        side, size = 336, (case["width"], case["height"])
        cut = TokenPackerTiles(max_tiles=case["patch_num"]).cut(size, side)
        found = {
            "h_block": cut.grid.rows,
            "w_block": cut.grid.columns,
            "resized_h": cut.resized[1],
            "resized_w": cut.resized[0],
            "tiles": cut.num_views,
        }
        for key in case:
            if scale := re.fullmatch(r"tokens_scale(\d+)", key):
                tokens = 24 // int(scale[1])
                found[key] = Separated().num_tokens(plan(cut, size, tokens), tokens**2)
        same_row(found, case, given=("height", "width", "patch_num"))
    tabled(name, len(oracle.info["cases"]))


@oracles("pos_embed_interpolation")
def test_positions_at_another_resolution(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        for case in oracle.info["cases"]:
            at = f"{case['variant']}/case{case['case']}/"
            if case["variant"] == "lavis":
                old, new = (Grid(1, case[key], case[key]) for key in ("old_grid", "new_grid"))
                table = oracle.give(f"{at}pos_embed")[0]
                got = interpolate_positions(table, old, new, prefix=case["extra_tokens"])
                oracle.check(f"{at}output", got[None])
                continue
            oracle.check(f"{at}embeddings", embeddings(oracle, at, case))
            if case["height"] == case["width"]:
                oracle.check(f"{at}embeddings", embedded_by_a_run(oracle, at, case, tmp_path / at))


TOWERS = {
    "clip": (transformers.CLIPVisionConfig, transformers.CLIPVisionModel),
    "siglip": (transformers.SiglipVisionConfig, transformers.SiglipVisionModel),
    "vit": (transformers.ViTConfig, transformers.ViTModel),
}


def embedded_by_a_run(oracle: Oracle, at: str, case: dict[str, Any], folder: Path) -> Tensor:
    """What stands before the first block of a tower that a model config sets to another image size than its own."""
    given = oracle.below(f"{at}weights/")
    config_class, tower_class = TOWERS[case["variant"]]
    sizes = {"hidden_size": oracle.tensors[f"{at}embeddings"].shape[-1], "num_attention_heads": 1}
    sizes |= {"image_size": case["trained_image"], "patch_size": case["patch"]}
    whole = tower_class(config_class(**sizes, intermediate_size=4, num_hidden_layers=1))
    inner = next(one for one in whole.modules() if hasattr(one, "interpolate_pos_encoding"))
    inner.load_state_dict(given, strict=False)
    whole.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    tower = VisionEncoder(name=str(folder), image_size=case["width"]).build()
    seen: list[Tensor] = []
    found = next(one for one in tower.modules() if hasattr(one, "interpolate_pos_encoding"))
    found.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        tower(oracle.tensors[f"{at}pixel_values"])
    return seen[0]


def embeddings(oracle: Oracle, at: str, case: dict[str, Any]) -> Tensor:
    """Patch embeddings, a class token where there is one, and interpolated positions."""
    given = oracle.below(f"{at}weights/")
    weights = {key.removeprefix("patch_embeddings.projection."): one for key, one in given.items()}
    pixels = oracle.give(f"{at}pixel_values")
    kernel = weights.get("patch_embedding.weight", weights.get("weight"))
    assert kernel is not None
    bias = weights.get("patch_embedding.bias", weights.get("bias"))
    maps = functional.conv2d(pixels, kernel, bias, stride=case["patch"])
    patches = rearrange(maps, "images width rows columns -> images (rows columns) width")
    classes = weights.get("class_embedding", weights.get("cls_token"))
    prefix = 0 if classes is None else 1
    if classes is not None:
        patches = torch.cat([classes.reshape(1, 1, -1).expand(len(patches), 1, -1), patches], dim=1)
    table = weights.get("position_embedding.weight", weights.get("position_embeddings"))
    assert table is not None
    old = case["trained_image"] // case["patch"]
    new = Grid(1, case["height"] // case["patch"], case["width"] // case["patch"])
    rows = table.reshape(-1, table.shape[-1])
    embedded: Tensor = patches + interpolate_positions(rows, Grid(1, old, old), new, prefix=prefix)
    return embedded


def test_a_wrong_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold 1 prefix tokens"):
        interpolate_positions(torch.zeros(16, 4), Grid(1, 4, 4), Grid(1, 6, 6), prefix=1)
