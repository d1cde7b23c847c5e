"""A trained model of ours as a model of a native class.

The native model shares our weights: nothing is copied but what has to have another shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from isthmus.connectors import Idefics2Config, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.towers import FAMILIES, patch_size
from isthmus.encoders.vision import VisionTower
from isthmus.exchange.key_maps import INTERNVL_NATIVE, TWO_LINEAR
from isthmus.exchange.misfits import (
    ACTIVATIONS,
    blip_lacks,
    idefics2_lacks,
    instructblip_lacks,
    internvl_lacks,
    llava_lacks,
    llava_next_lacks,
    vipllava_lacks,
)
from isthmus.exchange.processors import blip_processor, idefics2_processor, internvl_processor, llava_processor
from isthmus.exchange.towers import whole_tower
from isthmus.model import Model, VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One native class that a run can go out to."""

    class_name: str
    lacks: Callable[[Model], str]
    """What of a model the class cannot hold; empty when it can."""
    make: Callable[[VisionLanguageModel, int], Any]
    """The native model; the number is the id of the image token."""
    processor: Callable[[VisionLanguageModel, Any], Any]
    """Its processor around a tokenizer, which is made ready for it; `None` without a torchvision that it needs."""
    chats: bool = True
    """Whether the processor keeps a chat template."""
    pads: bool = True
    """Whether the processor pads questions of unequal length rightly."""


def _tower(model: VisionLanguageModel) -> VisionTower:
    assert isinstance(model.encoder, VisionTower), "a run that goes out is loaded with its encoder"
    return model.encoder


def _lm(model: VisionLanguageModel) -> Any:
    return model.llm.model


def _prefix(tower: VisionTower) -> int:
    config: Any = tower.tower.config
    return FAMILIES[config.model_type].prefix(config)


def _make(class_name: str, config: Any, parts: dict[str, Any]) -> Any:
    """A native model whose parts are these; what is not among them has to be nothing."""
    with torch.device("meta"):
        made = getattr(transformers, class_name)(config)
    for path, part in parts.items():
        holder_name, _, name = path.rpartition(".")
        holder = made.get_submodule(holder_name)
        if isinstance(part, dict):
            holder.get_submodule(name).load_state_dict(part, assign=True)
        elif isinstance(part, Tensor):
            setattr(holder, name, nn.Parameter(part))
        else:
            setattr(holder, name, part)
    lost = [name for name, value in made.state_dict().items() if value.is_meta]
    assert not lost, f"{class_name} is left without {lost[:3]}"
    return made.eval()


def _language(lm: Any) -> dict[str, Any]:
    return {"model.language_model": getattr(lm, lm.base_model_prefix), "lm_head": lm.get_output_embeddings()}


def _make_llava(model: VisionLanguageModel, image_id: int) -> Any:
    tower, lm = _tower(model), _lm(model)
    whole, prefix = whole_tower(tower), _prefix(tower)
    shared: dict[str, Any] = {
        "vision_config": whole.config,
        "text_config": lm.config,
        "image_token_index": image_id,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default" if prefix else "full",
        "tie_word_embeddings": bool(lm.config.tie_word_embeddings),
        "image_seq_length": model.source.grid.size,
    }
    parts = {
        "model.vision_tower": whole,
        "model.multi_modal_projector": TWO_LINEAR.to_official(model.connector.state_dict()),
        **_language(lm),
    }
    if isinstance(tower.config.tiles, AnyresTiles):
        side = tower.config.image_size
        shared["image_grid_pinpoints"] = [[rows * side, columns * side] for columns, rows in tower.config.tiles.grids]
        parts["model.image_newline"] = model.arrange.state_dict()["newline"]
        return _make("LlavaNextForConditionalGeneration", transformers.LlavaNextConfig(**shared), parts)
    return _make("LlavaForConditionalGeneration", transformers.LlavaConfig(**shared), parts)


def _make_vipllava(model: VisionLanguageModel, image_id: int) -> Any:
    tower, lm = _tower(model), _lm(model)
    whole = whole_tower(tower)
    norm = tower.tower.get_submodule(tower.norm_name).state_dict()
    config = transformers.VipLlavaConfig(
        vision_config=whole.config,
        text_config=lm.config,
        image_token_index=image_id,
        vision_feature_layer=-1,
        projector_layernorm_eps=whole.config.layer_norm_eps,
        tie_word_embeddings=bool(lm.config.tie_word_embeddings),
        image_seq_length=model.source.grid.size,
    )
    projector = TWO_LINEAR.to_official(model.connector.state_dict())
    projector |= {f"projector_layernorm.{key}": value for key, value in norm.items()}
    parts = {"model.vision_tower": whole, "model.multi_modal_projector": projector, **_language(lm)}
    return _make("VipLlavaForConditionalGeneration", config, parts)


def _make_internvl(model: VisionLanguageModel, image_id: int) -> Any:
    tower, lm, connector = _tower(model), _lm(model), model.config.connector
    assert isinstance(connector, PixelShuffleConfig)
    whole = whole_tower(tower)
    config = transformers.InternVLConfig(
        vision_config=whole.config,
        text_config=lm.config,
        image_token_id=image_id,
        image_seq_length=connector.num_tokens(model.source.grid),
        downsample_ratio=1 / connector.factor,
        vision_feature_layer=-1,
        tie_word_embeddings=bool(lm.config.tie_word_embeddings),
    )
    projector = INTERNVL_NATIVE.to_official(model.connector.state_dict())
    parts = {"model.vision_tower": whole, "model.multi_modal_projector": projector, **_language(lm)}
    return _make("InternVLForConditionalGeneration", config, parts)


def _make_idefics2(model: VisionLanguageModel, image_id: int) -> Any:
    tower, lm, connector = _tower(model), _lm(model), model.config.connector
    assert isinstance(connector, Idefics2Config)
    siglip = whole_tower(tower)
    vision = {key: value for key, value in siglip.config.to_dict().items() if key != "model_type"}
    perceiver = {
        "hidden_act": ACTIVATIONS[connector.activation],
        "hidden_size": lm.config.hidden_size,
        "rms_norm_eps": connector.norm_eps,
        "resampler_n_latents": connector.num_latents,
        "resampler_depth": connector.layers,
        "resampler_n_heads": connector.heads,
        "resampler_head_dim": connector.head_width,
        "num_key_value_heads": connector.kv_heads,
    }
    config = transformers.Idefics2Config(
        vision_config=vision,
        perceiver_config=perceiver,
        text_config=lm.config,
        image_token_id=image_id,
        tie_word_embeddings=bool(lm.config.tie_word_embeddings),
    )
    language = _language(lm)
    parts = {
        "model.vision_model": {key: value for key, value in siglip.state_dict().items() if not key.startswith("head.")},
        "model.connector": IDEFICS2_KEYS.to_official(model.connector.state_dict()),
        "model.text_model": language["model.language_model"],
        "lm_head": language["lm_head"],
    }
    return _make("Idefics2ForConditionalGeneration", config, parts)


def _make_blip(model: VisionLanguageModel, image_id: int) -> Any:
    tower, lm, connector = _tower(model), _lm(model), model.config.connector
    reads = isinstance(connector, InstructQFormerConfig)
    qformer = connector.qformer if isinstance(connector, InstructQFormerConfig) else connector
    assert isinstance(qformer, QFormerConfig)
    whole = whole_tower(tower)
    vision = {key: value for key, value in whole.config.to_dict().items() if key != "model_type"}
    sizes: dict[str, Any] = {
        "vocab_size": qformer.vocabulary,
        "hidden_size": qformer.width,
        "num_hidden_layers": qformer.layers,
        "num_attention_heads": qformer.heads,
        "intermediate_size": qformer.ffn_width,
        "max_position_embeddings": qformer.positions,
        "cross_attention_frequency": qformer.cross_every,
        "encoder_hidden_size": model.source.width,
        "hidden_dropout_prob": qformer.dropout,
        "attention_probs_dropout_prob": qformer.dropout,
    }
    name = "InstructBlip" if reads else "Blip2"
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        qformer_config=sizes,
        text_config=lm.config,
        num_query_tokens=qformer.num_queries,
        image_token_index=image_id,
    )
    keys = below(INSTRUCTBLIP_NATIVE, "qformer") if reads else BLIP2_NATIVE
    weights = keys.to_official(model.connector.state_dict())
    own = whole.state_dict() | _below(weights, "vision_model.")
    parts = {
        "vision_model": own,
        "query_tokens": weights["query_tokens"],
        "qformer": _below(weights, "qformer."),
        "language_projection": _below(weights, "language_projection."),
        "language_model": lm,
    }
    return _make(f"{name}ForConditionalGeneration", config, parts)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _llava_ready(model: VisionLanguageModel, tokenizer: Any) -> Any:
    tower = _tower(model)
    return llava_processor(model.config, tower, tokenizer, patch_size(tower.tower.config), _prefix(tower))


def _blip_ready(model: VisionLanguageModel, tokenizer: Any) -> Any:
    return blip_processor(model.config, _tower(model), tokenizer, model.config.connector.num_tokens(model.source.grid))


def _idefics2_ready(model: VisionLanguageModel, tokenizer: Any) -> Any:
    count = model.config.connector.num_tokens(model.source.grid)
    return idefics2_processor(model.config, _tower(model), tokenizer, count)


def _internvl_ready(model: VisionLanguageModel, tokenizer: Any) -> Any:
    count = model.config.connector.num_tokens(model.source.grid)
    return internvl_processor(model.config, _tower(model), tokenizer, count)


GOALS: dict[str, Goal] = {
    "llava": Goal(
        class_name="LlavaForConditionalGeneration", lacks=llava_lacks, make=_make_llava, processor=_llava_ready
    ),
    "vipllava": Goal(
        class_name="VipLlavaForConditionalGeneration",
        lacks=vipllava_lacks,
        make=_make_vipllava,
        processor=_llava_ready,
    ),
    "llava-next": Goal(
        class_name="LlavaNextForConditionalGeneration",
        lacks=llava_next_lacks,
        make=_make_llava,
        processor=_llava_ready,
    ),
    "blip2": Goal(
        class_name="Blip2ForConditionalGeneration",
        lacks=blip_lacks,
        make=_make_blip,
        processor=_blip_ready,
        chats=False,
    ),
    "instructblip": Goal(
        class_name="InstructBlipForConditionalGeneration",
        lacks=instructblip_lacks,
        make=_make_blip,
        processor=_blip_ready,
        chats=False,
        pads=False,
    ),
    "internvl": Goal(
        class_name="InternVLForConditionalGeneration",
        lacks=internvl_lacks,
        make=_make_internvl,
        processor=_internvl_ready,
    ),
    "idefics2": Goal(
        class_name="Idefics2ForConditionalGeneration",
        lacks=idefics2_lacks,
        make=_make_idefics2,
        processor=_idefics2_ready,
    ),
}
"""Every class that a run can go out to, by the name that `--to` takes."""
