"""Tiny random vision towers of every family, saved as folders in the transformers format."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from isthmus.weights import quiet_transformers

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}
RATIO = {key: value for key, value in SIZES.items() if key != "intermediate_size"} | {"mlp_ratio": 2}

TOWERS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", SIZES, 1),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", SIZES, 0),
    "eva": ("Blip2VisionConfig", "Blip2VisionModel", SIZES, 1),
    "dinov2": ("Dinov2Config", "Dinov2Model", RATIO, 1),
    "dinov2-swiglu": ("Dinov2Config", "Dinov2Model", RATIO | {"use_swiglu_ffn": True}, 1),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        RATIO | {"num_register_tokens": 4},
        5,
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", SIZES | {"num_register_tokens": 4}, 5),
    "vit": ("ViTConfig", "ViTModel", SIZES, 1),
    "deit": ("DeiTConfig", "DeiTModel", SIZES, 2),
    "internvl": ("InternVLVisionConfig", "InternVLVisionModel", SIZES | {"use_mean_pooling": False}, 1),
    "ijepa": ("IJepaConfig", "IJepaModel", SIZES, 0),
}
"""Family -> config class, model class, sizes, class and register tokens."""

PROCESSOR = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.2, 0.5], "resample": 3}


def make(family: str) -> torch.nn.Module:
    """A tiny random model of a family."""
    config, model, sizes, _ = TOWERS[family]
    torch.manual_seed(0)
    with quiet_transformers():
        tower = getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()
    for weight in tower.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return tower


def save(family: str, folder: Path, processor: dict[str, Any] | None = PROCESSOR) -> torch.nn.Module:
    """Writes a tiny model and its processor file, and returns the model."""
    tower = make(family)
    with quiet_transformers():
        tower.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return tower
