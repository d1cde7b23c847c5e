"""A vision tower of ours made whole again: the norm and pooler that we do not run, positions of the size we run at."""

import copy
from typing import Any

import torch
import transformers
from torch import nn

from isthmus.encoders.positions import interpolate_positions
from isthmus.encoders.towers import FAMILIES, native_size, patch_size
from isthmus.encoders.vision import VisionTower
from isthmus.features import Grid


def whole_tower(tower: VisionTower) -> Any:
    """A tower of the native class with our weights, for images of the size that we use.

    Parts that are never run (a norm, a pooler) are fresh.
    """
    config: Any = copy.deepcopy(tower.tower.config)
    family = FAMILIES[config.model_type]
    side = tower.config.image_size
    resized = side != native_size(config)
    state = dict(tower.tower.state_dict())
    if resized and family.positions == "argument":
        old = native_size(config) // patch_size(config)
        name, table = _positions(tower.tower, Grid(1, old, old), tower.shape.grid, family.prefix(config))
        config.image_size = side
        state[name] = table
    whole = getattr(transformers, family.model)._from_config(config)
    missing, unknown = whole.load_state_dict(state, strict=False)
    assert not unknown, f"the tower holds {unknown[:3]}, which its class does not"
    run = [key for key in missing if key.startswith(("embeddings.", "encoder.", "layers.", "layer."))]
    assert not run, f"the tower lacks {run[:3]}"
    return whole.to(tower.dtype).eval()


@torch.no_grad()
def _positions(tower: Any, old: Grid, new: Grid, prefix: int) -> tuple[str, torch.Tensor]:
    """The name of the position table, and the table for this patch grid, as the tower interpolates it at each call."""
    for name, module in tower.named_modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue
        inner = "position_embedding" if hasattr(module, "position_embedding") else "position_embeddings"
        table = getattr(module, inner)
        if isinstance(table, nn.Embedding):
            return f"{name}.{inner}.weight", interpolate_positions(table.weight, old, new, prefix=prefix)
        return f"{name}.{inner}", interpolate_positions(table[0], old, new, prefix=prefix)[None]
    raise ValueError(
        f"{type(tower).__name__} has no position table that can be set to {new.rows} x {new.columns} patches: use its "
        f"own size."
    )
