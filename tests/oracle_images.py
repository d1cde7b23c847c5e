"""Oracle files of tiles, layouts and positions with other sizes, grids and orders, made by code that is not ours.

`transformers`' image processors, packing and embeddings; for TokenPacker-HD, which is not in it, and for padding to a
square, the sentences of the oracles' own notes, written out.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from oracle_variants import drawn, weights, write
from torch import Tensor
from torch.nn import functional
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, unpad_image
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings
from transformers.models.vit.modeling_vit import ViTEmbeddings

SIZES = ((512, 384), (90, 1_000), (1_999, 1_001), (30, 31), (4_096, 2_160))


def table(folder: Path, name: str, cases: list[dict[str, Any]], **more: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"what": "a variant", "cases": cases, **more}), encoding="utf-8")


def dynamic(folder: Path) -> None:
    """Tiles of 224 px, up to 5, 12 and 40 of them, largest image first; a picture in tiles of 8 px."""
    cases = []
    for width, height in reversed(SIZES):
        for most, thumbnail in ((5, True), (12, False), (40, True)):
            columns, rows = get_optimal_tiled_canvas((height, width), (224, 224), 1, most)
            blocks = columns * rows
            last = [(columns - 1) * 224, (rows - 1) * 224, columns * 224, rows * 224]
            asked = {"width": width, "height": height, "min_num": 1, "max_num": most, "image_size": 224}
            found = {
                "cols": columns,
                "rows": rows,
                "resized": last[2:],
                "blocks": blocks,
                "first_box": [0, 0, 224, 224],
            }
            found |= {"thumbnail": thumbnail and blocks > 1, "num_images": blocks + (thumbnail and blocks > 1)}
            found |= {"first_box": [0, 0, 224, 224], "last_box": last, "order_dependent": False}
            cases.append({**asked, "use_thumbnail": thumbnail, **found})
    table(folder, "internvl_tiles_224", cases, target_ratio_order={"1-2": [[1, 1], [1, 2], [2, 1]]})
    image = torch.randint(0, 256, (41, 12, 3))
    plain = {"do_rescale": False, "do_normalize": False, "crop_to_patches": True, "max_patches": 4}
    made = GotOcr2ImageProcessorPil(size={"height": 8, "width": 8}, **plain)
    tiles = made(images=[image.numpy().astype(np.uint8)], return_tensors="pt")["pixel_values"].permute(0, 2, 3, 1)
    config = {"min_num": 1, "max_num": 4, "image_size": 8, "use_thumbnail": True}
    write(folder, "internvl_tiles_pixels_tall", config, {"inputs/image": image, "outputs/tiles": tiles.long()})


def best(size: tuple[int, int], pinpoints: list[list[int]]) -> tuple[list[int], list[int]]:
    """The (width, height) of the best resolution, and of the image inside it."""
    high, wide = select_best_resolution(size[::-1], [(one[1], one[0]) for one in pinpoints])
    inner = get_patch_output_size(np.empty((3, size[1], size[0])), (high, wide), ChannelDimension.FIRST)
    return [wide, high], [int(inner[1]), int(inner[0])]


def anyres(folder: Path) -> None:
    """Tiles of 224 px and 16 patches, whose sizes unpad the same with and without rounding; a picture."""
    pinpoints = [[448, 448], [672, 224], [224, 224], [224, 896]]
    cases, shrunk = [], []
    for width, height in SIZES:
        (wide, high), (inside, tall) = best((width, height), pinpoints)
        columns, rows = wide // 224, high // 224
        _, down, across = unpad_image(torch.zeros(1, rows * 16, columns * 16), (height, width)).shape
        tokens = 256 + down * (across + 1)
        grid = {"grid_w": columns, "grid_h": rows, "feature_h": rows * 16, "feature_w": columns * 16}
        theirs = {"transformers_unpadded_h": down, "transformers_unpadded_w": across, "transformers_tokens": tokens}
        asked = {"width": width, "height": height, "pinpoints": "four", "tile": 224, "patches_per_side": 16}
        found = {"best_resolution": [wide, high], "transformers_best_resolution": [wide, high]}
        found |= {"resized_in_canvas": [inside, tall], "paste_xy": [(wide - inside) // 2, (high - tall) // 2]}
        found |= {"num_crops_with_base": 1 + rows * columns, "unpadded_h": down, "unpadded_w": across}
        found |= {"tokens_spatial_unpad": tokens, "tokens_spatial": 256 * (1 + rows * columns)}
        cases.append({**asked, **grid, **found, **theirs, "variants_differ": False})
        shrunk.append(onevision_case((width, height), 2))
    table(folder, "llava_anyres_tables_224", cases, pinpoints_wh={"four": pinpoints})
    table(folder, "llava_onevision_tables_two", shrunk, pinpoints_wh={"three": [[384, 768], [768, 768], [1152, 384]]})
    image = torch.randint(0, 256, (9, 31, 3))
    processor = LlavaNextImageProcessorPil()
    channels = image.permute(2, 0, 1).numpy().astype(np.uint8)
    patches = processor.get_image_patches(channels, [(8, 16)], (8, 8), 8, processor.resample)[1:]
    inner = processor._resize_for_patching(channels, (8, 16), processor.resample)
    padded = torch.from_numpy(np.array(processor._pad_for_patching(inner, (8, 16)))).permute(1, 2, 0)
    tiles = torch.from_numpy(np.stack(patches)).permute(0, 2, 3, 1)
    tensors = {"inputs/image": image, "outputs/padded": padded.long(), "outputs/patches": tiles.long()}
    write(folder, "llava_anyres_pixels_wide", {"target_wh": [16, 8], "patch": 8}, tensors)


def onevision_case(size: tuple[int, int], most: int) -> dict[str, Any]:
    """One row of the table: 384 px and 27 patches a tile."""
    (wide, high), _ = best(size, [[384, 768], [768, 768], [1152, 384]])
    columns, rows = wide // 384, high // 384
    _, down, across = unpad_image(torch.zeros(1, rows * 27, columns * 27), size[::-1]).shape
    ratio = (down * across / (most * 27**2)) ** 0.5
    final = (int(down // ratio), int(across // ratio)) if ratio > 1.1 else (down, across)
    tokens = 729 + final[0] * (final[1] + 1)
    row = {"pinpoints": "three", "width": size[0], "height": size[1], "max_num_patches": most, "ratio": round(ratio, 9)}
    row |= {"best_resolution": [wide, high], "tile_cols": columns, "tile_rows": rows, "shrunk": ratio > 1.1}
    row |= {"unpadded_h": down, "unpadded_w": across, "final_h": final[0], "final_w": final[1], "tokens": tokens}
    row |= {"transformers_unpadded_h": down, "transformers_unpadded_w": across, "transformers_tokens": tokens}
    return {**row, "variants_differ": False}


def square(folder: Path) -> None:
    """Two images and one colour."""
    sizes, colour = [[3, 8], [9, 2]], [1, 200, 3]
    tensors: dict[str, Tensor] = {}
    for number, (width, height) in enumerate(sizes):
        image, longer = torch.randint(0, 256, (height, width, 3)), max(width, height)
        whole = torch.tensor(colour).expand(longer, longer, 3).clone()
        top, left = (longer - height) // 2, (longer - width) // 2
        whole[top : top + height, left : left + width] = image
        tensors |= {f"inputs/image_{number}": image, f"outputs/square_own_{number}": whole}
    write(folder, "llava_expand2square_two", {"sizes_wh": sizes, "backgrounds": {"own": colour}}, tensors)


def layouts(folder: Path) -> None:
    """Text before, between and after two images of a row, a row without one, and one that is cut short."""
    side, tile, width = 4, 8, 6
    pinpoints = [[16, 8], [8, 24], [24, 16]]
    sizes = [[31, 17], [9, 9], [8, 30], [50, 40]]
    features, columns_rows = [], [best((wide, high), pinpoints)[0] for wide, high in sizes]
    for wide, high in columns_rows:
        features.append(torch.randn(1 + wide * high // tile**2, side**2, width))
    newline, words = torch.randn(width), torch.randn(20, width)
    ids = torch.tensor([[3, -200, 4, -200, 5], [6, 7, 8, 9, 0], [10, 11, -200, 12, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]])
    labels = torch.where(mask.bool() & (ids > 4), ids, -100)
    sizes_hw = [(high, wide) for wide, high in sizes]
    grids_hw = [[high, wide] for wide, high in pinpoints]
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=tile, patch_size=tile // side), image_grid_pinpoints=grids_hw
    )
    mine = SimpleNamespace(config=config)
    next_parts, _ = LlavaNextModel.pack_image_features(mine, features, sizes_hw, "default", newline)
    vision_parts, _ = LlavaOnevisionModel.pack_image_features(mine, features, sizes_hw, newline, "anyres_max_2")
    said = {"patches_per_side": side, "tile": tile, "pinpoints_wh": pinpoints, "image_sizes_wh": sizes}
    said |= {"mm_patch_merge_type": "spatial_unpad", "padding_side": "left"}
    given = {"inputs/input_ids": ids, "inputs/attention_mask": mask, "inputs/labels": labels}
    given |= {f"inputs/image_features_{number}": one for number, one in enumerate(features)}
    given |= {"weights/image_newline": newline, "weights/embed_tokens.weight": words}
    limit = len(next_parts[0]) + len(next_parts[1]) - 5
    out = spliced(given, next_parts, limit)
    write(folder, "llava_next_layout_two", said | {"tokenizer_model_max_length": limit}, given | out)
    out = spliced(given, vision_parts, None)
    out |= {f"outputs/packed_{number}": one for number, one in enumerate(vision_parts)}
    write(folder, "llava_onevision_layout_two", said | {"max_num_patches": 2}, given | out)


def spliced(given: dict[str, Tensor], parts: list[Tensor], limit: int | None) -> dict[str, Tensor]:
    """Rows padded on the left; the row without a mark uses up the third image."""
    words, labels = given["weights/embed_tokens.weight"], given["inputs/labels"]
    ids, blank = given["inputs/input_ids"], -100
    none = torch.full((1,), blank)

    def hidden(part: Tensor) -> Tensor:
        return none.expand(len(part))

    first = [words[3:4], parts[0], words[4:5], parts[1], words[5:6]]
    after = [labels[0, :1], hidden(parts[0]), labels[0, 2:3], hidden(parts[1]), labels[0, 4:]]
    third = torch.cat([words[10:12], parts[3], words[12:13]])
    rows = [
        (torch.cat(first), torch.cat(after)),
        (words[ids[1, :4]], labels[1, :4]),
        (third, torch.cat([labels[2, :2], hidden(parts[3]), labels[2, 3:4]])),
    ]
    rows = [(embeds[:limit], targets[:limit]) for embeds, targets in rows]
    longest = max(len(targets) for _, targets in rows)
    lead = [longest - len(targets) for _, targets in rows]
    padded = [functional.pad(embeds, (0, 0, before, 0)) for (embeds, _), before in zip(rows, lead, strict=True)]
    targets = [functional.pad(one, (before, 0), value=blank) for (_, one), before in zip(rows, lead, strict=True)]
    seen = [torch.tensor([0] * before + [1] * (longest - before)) for before in lead]
    made = {"inputs_embeds": torch.stack(padded), "labels": torch.stack(targets), "attention_mask": torch.stack(seen)}
    return {f"outputs/{key}": value for key, value in made.items()}


def packer_tiles(folder: Path) -> None:
    """Up to 9 and 16 tiles."""
    nine = "1,1 1,2 2,1 1,3 3,1 2,2 1,4 4,1 1,5 5,1 1,6 6,1 2,3 3,2 1,7 7,1 4,2 2,4 1,8 8,1 3,3 1,9 9,1"
    sixteen = f"{nine} 2,5 5,2 2,6 6,2 3,4 4,3 2,7 7,2 3,5 5,3 2,8 8,2 4,4"
    grids = {str(most): [[int(one) for one in pair.split(",")] for pair in listed.split()]
             for most, listed in ((9, nine), (16, sixteen))}  # fmt: skip
    cases = []
    for width, height in SIZES:
        for most, pairs in grids.items():
            room = torch.tensor(pairs).float() * 336
            image = torch.tensor([height, width]).float()
            ratio = (room / image).amin(dim=1, keepdim=True)
            area = room.prod(dim=1)
            both = torch.minimum(room, image * 1.4).prod(dim=1)
            score = (image * ratio).round().prod(dim=1) / area + 0.1 * both / (area + (image * 1.4).prod() - both)
            rows, columns = pairs[int(score.argmax())]
            scale = min(rows * 336 / height, columns * 336 / width)
            tiles = rows * columns + (rows * columns > 1)
            row = {"height": height, "width": width, "patch_num": int(most), "h_block": rows, "w_block": columns}
            row |= {"resized_h": round(height * scale), "resized_w": round(width * scale), "tiles": tiles}
            marks = rows * columns + (rows * columns > 1)
            cases.append(row | {f"tokens_scale{s}": tiles * (24 // s) ** 2 + marks for s in (3, 2)})
    table(folder, "tokenpacker_hd_tiles_few", cases, grids=grids)


def positions(folder: Path) -> None:
    """Smaller and larger than trained, wider than high."""
    tensors, cases = {}, []
    for number, (old, new, extra) in enumerate(((3, 7, 2), (6, 3, 0))):
        held = torch.randn(1, extra + old**2, 5)
        grid = held[:, extra:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
        moved = functional.interpolate(grid, (new, new), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        at = f"lavis/case{number}/"
        tensors |= {f"{at}pos_embed": held, f"{at}output": torch.cat([held[:, :extra], moved], dim=1)}
        cases.append({"variant": "lavis", "case": number, "old_grid": old, "new_grid": new, "extra_tokens": extra})
    given: dict[str, Any] = {"hidden_size": 4, "image_size": 15, "patch_size": 3, "num_attention_heads": 2}
    made = {
        "siglip": SiglipVisionEmbeddings(transformers.SiglipVisionConfig(**given)),
        "vit": ViTEmbeddings(transformers.ViTConfig(**given)),
        "clip": CLIPVisionEmbeddings(transformers.CLIPVisionConfig(**given)),
    }
    for variant, module in made.items():
        pixels, at = torch.randn(1, 3, 12, 21), f"{variant}/case0/"
        held = weights(drawn(module), f"{at}weights/")
        tensors |= {key: value for key, value in held.items() if "position_ids" not in key}
        with torch.no_grad():
            seen = module(pixels, interpolate_pos_encoding=True)
        tensors |= {f"{at}pixel_values": pixels, f"{at}embeddings": seen}
        cases.append({"variant": variant, "case": 0, "trained_image": 15, "patch": 3, "height": 12, "width": 21})
    write(folder, "pos_embed_interpolation_five", {}, tensors, cases=cases)


def make_images(folder: Path) -> list[str]:
    """Writes every variant; returns their names."""
    torch.manual_seed(78)
    for make in (dynamic, anyres, square, layouts, packer_tiles, positions):
        make(folder)
    return sorted(path.stem for path in folder.glob("*.json"))
