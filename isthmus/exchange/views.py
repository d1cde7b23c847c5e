"""Which views of an image a native class's image processor makes, and what of that an imported run does not do.

Sources: the processors of InternVL (GotOcr2), Idefics2 and PerceptionLM, transformers 5.23.
"""

from collections.abc import Mapping
from typing import Any

from isthmus.encoders.tiles import DynamicTiles, OneView, TilingConfig


def tiles_of(kind: str, about: Mapping[str, Any]) -> TilingConfig:
    """The tiles of InternVL's processor, which cuts images whatever `crop_to_patches` says in its file.

    Every other class gets one view here; LlavaNext's tiles are in its own config.
    """
    cuts = "crop_to_patches" in about or str(about.get("image_processor_type", "")).startswith("GotOcr2")
    if kind != "internvl" or not cuts:
        return OneView()
    return DynamicTiles(min_tiles=int(about.get("min_patches", 1)), max_tiles=int(about.get("max_patches", 12)))


def not_carried(kind: str, about: Mapping[str, Any], side: int) -> dict[str, str]:
    """What an image processor does that the run does not, and what to do about it. `side` is the tower's, in pixels."""
    left: dict[str, str] = {}
    tiles = tiles_of(kind, about)
    if isinstance(tiles, DynamicTiles) and tiles.min_tiles > 1:
        left[f"the order of equal grids from min_patches={tiles.min_tiles} on"] = (
            "an image whose shape lies exactly between two grids of as many tiles may be cut into the other one"
        )
    size = about.get("size") or {}
    keeps_shape = "shortest_edge" in size and size != {"shortest_edge": side, "longest_edge": side}
    if keeps_shape and not about.get("do_center_crop") and kind != "llava_next":
        left[f"size={dict(size)}, do_pad={bool(about.get('do_pad'))}"] = (
            f"there an image keeps its shape and its size up to that; the run squashes it to {side} x {side} px. For "
            f"another way to a square train on from the run with --model.encoder.fit pad, or crop"
        )
    if about.get("do_image_splitting"):
        left["do_image_splitting=True"] = (
            "there an image is five views, four crops and the whole; the run sees the whole alone. For crops train on "
            "from the run with --model.encoder.tiles sub-images --model.encoder.tiles.whole last"
        )
    own = str(about.get("image_processor_type", "")).startswith("PerceptionLM")
    if about.get("vision_input_type", "thumb+tile" if own else None) == "thumb+tile":
        most = about.get("max_num_tiles", 36)
        left[f"vision_input_type='thumb+tile', max_num_tiles={most}"] = (
            f"there an image is the whole and up to {most} tiles; the run sees the whole alone. For tiles train "
            f"on from the run with --model.encoder.tiles dynamic --model.encoder.tiles.max-tiles {most}, which puts "
            f"the whole last"
        )
    return left
