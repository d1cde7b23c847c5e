"""The vision towers of `transformers` that can be used, and what differs between them.

One line a family: its class, how many class or register tokens stand before the patches, the name of its final norm,
and how it takes an image of another size than it was trained on.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

from isthmus.encoders.timm_towers import TIMM, describe_timm, prefix_of, timm_states, trim_timm, with_timm
from isthmus.weights import quiet_transformers


def _hidden_states(tower: nn.Module, pixels: Tensor, options: dict[str, bool]) -> tuple[Tensor, ...]:
    states: tuple[Tensor, ...] = tower(pixels, output_hidden_states=True, **options).hidden_states
    return states


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the encoder must know of one family of towers."""

    model: str
    prefix: Callable[[Any], int]
    norm: str
    positions: Literal["argument", "always"]
    pooler: bool = False
    states: Callable[[nn.Module, Tensor, dict[str, bool]], tuple[Tensor, ...]] = _hidden_states
    """The hidden states, embeddings first."""
    embeddings: bool = True
    """Whether the embeddings can be had as layer 0."""


def _none(config: Any) -> int:
    return 0


def _class(config: Any) -> int:
    return 1


def _class_and_distillation(config: Any) -> int:
    return 2


def _class_and_registers(config: Any) -> int:
    return 1 + int(config.num_register_tokens)


FAMILIES: dict[str, Family] = {
    "clip_vision_model": Family(model="CLIPVisionModel", prefix=_class, norm="post_layernorm", positions="argument"),
    "siglip_vision_model": Family(model="SiglipVisionModel", prefix=_none, norm="post_layernorm", positions="argument"),
    "blip_2_vision_model": Family(model="Blip2VisionModel", prefix=_class, norm="post_layernorm", positions="argument"),
    "dinov2": Family(model="Dinov2Model", prefix=_class, norm="layernorm", positions="always"),
    "dinov2_with_registers": Family(
        model="Dinov2WithRegistersModel", prefix=_class_and_registers, norm="layernorm", positions="always"
    ),
    "dinov3_vit": Family(model="DINOv3ViTModel", prefix=_class_and_registers, norm="norm", positions="always"),
    "vit": Family(model="ViTModel", prefix=_class, norm="layernorm", positions="argument", pooler=True),
    "deit": Family(
        model="DeiTModel", prefix=_class_and_distillation, norm="layernorm", positions="argument", pooler=True
    ),
    "internvl_vision": Family(model="InternVLVisionModel", prefix=_class, norm="layernorm", positions="always"),
    TIMM: Family(
        model="TimmWrapperModel",
        prefix=prefix_of,
        norm="timm_model.norm",
        positions="always",
        states=timm_states,
        embeddings=False,
    ),
    "ijepa": Family(model="IJepaModel", prefix=_none, norm="layernorm", positions="argument"),
}


SAME = {"instructblip_vision_model": "blip_2_vision_model", "idefics2_vision": "siglip_vision_model"}
"""Towers inside whole models that compute what another family does; from such a folder costs and shapes are read."""


@functools.lru_cache(maxsize=32)
def read_any(source: str) -> Any:
    """The config of any model, from its config.json alone; it is shared, so change a copy. Raises ValueError."""
    try:
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except ImportError:
        with_timm(source)
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"Cannot read the config of {source!r}: {str(error).splitlines()[0]} Give a folder in the transformers "
            f"format, a hub id that this machine can reach or holds in its cache, or bundled/NAME."
        ) from error


def read_config(source: str) -> Any:
    """The vision part of a model's config, from its config.json alone (a fresh copy; the file is read once).

    Raises:
        ValueError: no readable config, or a model that is no vision tower known here.
    """
    return copy.deepcopy(_vision_part(source))


@functools.lru_cache(maxsize=32)
def _vision_part(source: str) -> Any:
    whole = read_any(source)
    config = getattr(whole, "vision_config", whole)
    if config.model_type in SAME:
        config = _as_family(config, SAME[config.model_type])
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{source!r} is a {config.model_type!r} model, not a vision tower that can be used here: "
            f"{', '.join(FAMILIES)}. A folder of a whole model (CLIP, SigLIP, BLIP-2) is used by its vision part."
        )
    if config.model_type == TIMM:
        describe_timm(config, source)
    return config


def _as_family(config: Any, kind: str) -> Any:
    """The same numbers in the config of another family."""
    made, given = transformers.AutoConfig.for_model(kind), config.to_dict()
    for name in set(made.to_dict()) & set(given) - {"model_type", "transformers_version", "architectures"}:
        setattr(made, name, given[name])
    return made


def commit_of(source: str) -> str:
    """The hub commit that the config came from, or 'unknown'."""
    return str(getattr(read_any(source), "_commit_hash", None) or "unknown")


def patch_size(config: Any) -> int:
    """Side of a patch in pixels."""
    size = config.patch_size
    return int(size if isinstance(size, int) else size[0])


def native_size(config: Any) -> int:
    """Side of the image that the position table was made for, in pixels."""
    size = config.image_size
    return int(size if isinstance(size, int) else size[0])


def ffn_products(config: Any) -> int:
    """Multiply-adds of one token in one feed-forward: 2 d f, or 3 d f where it is gated."""
    if config.model_type == TIMM:
        return int(config.ffn_products)
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", 0) or width * getattr(config, "mlp_ratio", 4))
    if getattr(config, "use_swiglu_ffn", False):
        return 3 * width * ((int(inner * 2 / 3) + 7) // 8 * 8)
    return (3 if getattr(config, "use_gated_mlp", False) else 2) * width * inner


def make_tower(config: Any, *, final_norm: bool, source: str | None, dtype: torch.dtype) -> nn.Module:
    """The tower of `config` without the parts that are not run: its pooler, and its final norm unless asked for.

    With `source` the weights are loaded from there, else they are freshly made (on the meta device for counting).

    Raises:
        ValueError: the weights lack a part of the tower.
    """
    family = FAMILIES[config.model_type]
    made = getattr(transformers, family.model)
    config.vision_use_head = False  # SigLIP's pooling head
    options: dict[str, Any] = {"add_pooling_layer": False} if family.pooler else {}
    if config.model_type == TIMM:
        trim_timm(config)
    if source is None:
        tower: nn.Module = made._from_config(config, **options)
    else:
        with quiet_transformers():
            tower, info = made.from_pretrained(
                source, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
        norm = family.norm.rpartition(".")[2]
        lacking = [key for key in info["missing_keys"] if final_norm or norm not in key.split(".")]
        if lacking or info["mismatched_keys"]:
            raise ValueError(
                f"The weights in {source!r} are not those of its config: missing {sorted(lacking)[:5]}, of another "
                f"shape {sorted(map(str, info['mismatched_keys']))[:5]}. Download or save the model again."
            )
    if not final_norm:
        owner, _, norm = family.norm.rpartition(".")
        setattr(tower.get_submodule(owner), norm, nn.Identity())
    return tower.eval()
