"""Plain vision transformers of the `timm` library, through the wrapper that `transformers` has for them.

A timm config names an architecture and gives no widths; they are read from the model itself, made without weights.
Checked against: timm 1.0.31, `forward_intermediates` of VisionTransformer and Eva.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import is_timm_available

TIMM = "timm_wrapper"


def with_timm(source: str) -> None:
    """Raises ValueError where timm is not installed."""
    if not is_timm_available():
        raise ValueError(
            f"{source!r} is a tower of the timm library, which is not installed. `pip install timm` (it needs "
            f"torchvision), or name a tower that transformers has itself."
        )


def describe_timm(config: Any, source: str) -> None:
    """Write into a timm wrapper's config what other towers' configs say: width, blocks, patch, image size.

    Pooling is left out of the model, and its position table is interpolated to whatever image comes.

    Raises:
        ValueError: timm is not installed, or the architecture is no plain vision transformer.
    """
    with_timm(source)
    import timm

    config.do_pooling = False
    config.model_args = {**(config.model_args or {}), "global_pool": "", "dynamic_img_size": True}
    plain = True
    try:
        with torch.device("meta"):
            model = timm.create_model(config.architecture, pretrained=False, num_classes=0, **config.model_args)
    except TypeError:  # an architecture that does not know these arguments
        plain = False
    if not plain or not all(hasattr(model, name) for name in ("blocks", "patch_embed", "num_prefix_tokens", "norm")):
        raise ValueError(
            f"{source!r} is timm's {config.architecture!r}, which is no plain vision transformer (one grid of patches, "
            f"equal blocks). Use a vit_* or eva02_* model of timm, or a tower that transformers has itself."
        )
    config.hidden_size = model.embed_dim
    config.num_hidden_layers = len(model.blocks)
    config.patch_size = model.patch_embed.patch_size[0]
    config.image_size = model.patch_embed.img_size[0]
    config.prefix_tokens = model.num_prefix_tokens
    linear = (part for part in model.blocks[0].mlp.modules() if isinstance(part, nn.Linear))
    config.ffn_products = sum(part.in_features * part.out_features for part in linear)


def prefix_of(config: Any) -> int:
    """Class and register tokens before the patches."""
    return int(config.prefix_tokens)


def trim_timm(config: Any) -> None:
    """Leave out the blocks beyond `num_hidden_layers`."""
    config.model_args = {**config.model_args, "depth": config.num_hidden_layers}


def timm_states(tower: nn.Module, pixels: Tensor, options: dict[str, bool]) -> tuple[Tensor, ...]:
    """What comes out of every block, [views, prefix + patches, width]; at place 0, for the embeddings, what enters.

    timm gives patches and prefix tokens apart, and no embeddings: place 0 holds an empty tensor.
    """
    found = tower(pixels, output_hidden_states=True, return_prefix_tokens=True, output_fmt="NLC", **options)
    joined = [state if isinstance(state, Tensor) else torch.cat(state[::-1], dim=1) for state in found.hidden_states]
    return joined[0].new_empty(0), *joined
