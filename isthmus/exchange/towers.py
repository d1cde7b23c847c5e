"""A vision tower of ours made whole again: the norm and pooler that we do not run, positions of the size we run at."""

import copy
from typing import Any

import torch
import transformers
from torch import nn

from isthmus.encoders.towers import FAMILIES, native_size
from isthmus.encoders.vision import VisionTower


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
        name, table = _positions(tower.tower, side, int(config.patch_size), family.prefix(config))
        config.image_size = side
        state[name] = table
    whole = getattr(transformers, family.model)._from_config(config)
    missing, unknown = whole.load_state_dict(state, strict=False)
    assert not unknown, f"the tower holds {unknown[:3]}, which its class does not"
    run = [key for key in missing if key.startswith(("embeddings.", "encoder.", "layers.", "layer."))]
    assert not run, f"the tower lacks {run[:3]}"
    return whole.to(tower.dtype).eval()


@torch.no_grad()
def _positions(tower: Any, side: int, patch: int, prefix: int) -> tuple[str, torch.Tensor]:
    """The name of the position table, and the table interpolated to this image size as the tower does it."""
    for name, module in tower.named_modules():
        if not hasattr(module, "interpolate_pos_encoding"):
            continue
        count = (side // patch) ** 2
        table = module.position_embedding if hasattr(module, "position_embedding") else module.position_embeddings
        weight = table.weight if isinstance(table, nn.Embedding) else table[0]
        probe = torch.zeros(1, count + prefix, weight.shape[-1], dtype=weight.dtype)
        wanted = module.interpolate_pos_encoding(probe, side, side)
        inner = "position_embedding" if hasattr(module, "position_embedding") else "position_embeddings"
        key = f"{name}.{inner}" + (".weight" if isinstance(table, nn.Embedding) else "")
        return key, wanted[0] if isinstance(table, nn.Embedding) else wanted
    raise ValueError(f"{type(tower).__name__} has no position table that can be set to {side} px: use its own size.")
