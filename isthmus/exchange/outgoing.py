"""A trained model of ours as a model of a native class, and why a model cannot be one.

The native model shares our weights: nothing is copied but what has to have another shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from isthmus.connectors import Idefics2Config, LinearConfig, MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import Anyres, Concatenate
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below
from isthmus.data.prompts import Bounded, QuestionAnswer
from isthmus.encoders.tiles import AnyresTiles, OneView
from isthmus.encoders.towers import FAMILIES, patch_size, read_config
from isthmus.encoders.vision import VisionEncoder, VisionTower
from isthmus.exchange.key_maps import INTERNVL_NATIVE, TWO_LINEAR
from isthmus.exchange.processors import blip_processor, idefics2_processor, llava_processor
from isthmus.exchange.towers import whole_tower
from isthmus.llms import CausalLM
from isthmus.llms.base import read_config as read_llm_config
from isthmus.model import Model, VisionLanguageModel
from isthmus.weights import resolve_model


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One native class that a run can go out to."""

    class_name: str
    lacks: Callable[[Model], str]
    """What of a model the class cannot hold; empty when it can."""
    make: Callable[[VisionLanguageModel, int], Any]
    """The native model; the number is the id of the image token."""
    processor: Callable[[VisionLanguageModel, Any], Any] | None
    """Its processor around a tokenizer; `None` where that needs torchvision."""
    chats: bool = True
    """Whether the processor keeps a chat template."""
    pads: bool = True
    """Whether the processor pads questions of unequal length rightly."""


def _llava_lacks(model: Model) -> str:
    if not isinstance(model.connector, MlpConfig) or model.connector.depth != 2:
        return f"Llava's connector is MlpConfig(depth=2), this is {_named(model.connector)}"
    return _in_place_lacks(model) or _one_view_lacks(model)


def _llava_next_lacks(model: Model) -> str:
    encoder, arrange = model.encoder, model.arrange
    if not isinstance(model.connector, MlpConfig) or model.connector.depth != 2:
        return f"LlavaNext's connector is MlpConfig(depth=2), this is {_named(model.connector)}"
    if not isinstance(encoder, VisionEncoder) or not isinstance(encoder.tiles, AnyresTiles) or not encoder.tiles.whole:
        return "LlavaNext cuts images by AnyresTiles(whole=True)"
    if not isinstance(arrange, Anyres) or not (arrange.unpad and arrange.newline) or arrange.max_tiles is not None:
        return f"LlavaNext's arrangement is Anyres(unpad=True, newline=True, digits=7), this is {_named(arrange)}"
    if encoder.fit != "squash":
        return f"LlavaNext squashes the whole image, this encoder's fit is {encoder.fit!r}"
    return _in_place_lacks(model)


def _blip_lacks(model: Model) -> str:
    wanted = "Blip2's connector is QFormerConfig(text=False)"
    if not isinstance(model.connector, QFormerConfig) or model.connector.text or model.connector.embedding:
        return f"{wanted}, this is {_named(model.connector)}"
    return _eva_lacks(model, model.connector)


def _instructblip_lacks(model: Model) -> str:
    if not isinstance(model.connector, InstructQFormerConfig):
        return f"InstructBlip's connector is InstructQFormerConfig, this is {_named(model.connector)}"
    if model.prompt != QuestionAnswer(question="{}"):
        return "InstructBlip gives its Q-Former the language model's prompt: prompt=QuestionAnswer(question='{}')"
    return _eva_lacks(model, model.connector.qformer)


def _eva_lacks(model: Model, connector: QFormerConfig) -> str:
    encoder = model.encoder
    if model.placement != "before-bos":
        return "Blip2 and InstructBlip put visual tokens in front of the text: placement='before-bos'"
    family = _family(model)
    if family != "blip_2_vision_model":
        return f"Blip2 and InstructBlip hold EVA's tower alone (blip_2_vision_model), this is {family!r}"
    if not isinstance(encoder, VisionEncoder) or not encoder.class_token or encoder.final_norm:
        return "Blip2 and InstructBlip keep the class token and norm inside the connector"
    return _one_view_lacks(model)


def _internvl_lacks(model: Model) -> str:
    connector = model.connector
    if not isinstance(connector, PixelShuffleConfig) or connector.order != "v2":
        return f"InternVL's connector is PixelShuffleConfig(order='v2'), this is {_named(connector)}"
    family = _family(model)
    if family != "internvl_vision":
        return f"InternVL holds InternViT alone (internvl_vision), this is {family!r}"
    return _in_place_lacks(model) or _one_view_lacks(model)


def _idefics2_lacks(model: Model) -> str:
    if not isinstance(model.connector, Idefics2Config):
        return f"Idefics2's connector is Idefics2Config, this is {_named(model.connector)}"
    if not isinstance(model.prompt, Bounded) or model.prompt.before != model.prompt.after:
        return "Idefics2 writes one token before and after every image: prompt=Bounded(style=...)"
    encoder = model.encoder
    if _family(model) != "siglip_vision_model" or not isinstance(encoder, VisionEncoder) or not encoder.final_norm:
        return f"Idefics2 holds SigLIP's tower with its final norm (final_norm=True), this is {_family(model)!r}"
    if encoder.fit != "squash":
        return f"images come to Idefics2 squashed, this encoder's fit is {encoder.fit!r}"
    return _in_place_lacks(model, normed=True) or _one_view_lacks(model) or _gated_lacks(model, model.connector)


def _gated_lacks(model: Model, connector: Idefics2Config) -> str:
    """Idefics2 takes two settings of its connector from its language model."""
    assert model.llm is not None
    llm = read_llm_config(resolve_model(model.llm.name))
    wanted = (llm.intermediate_size, llm.hidden_act)
    if (connector.project_width, _ACTIVATIONS[connector.project_activation]) != wanted:
        return f"Idefics2's gated MLP has the inner width and activation of its language model, {wanted}"
    return ""


def _in_place_lacks(model: Model, *, normed: bool = False) -> str:
    encoder = model.encoder
    if model.placement != "in-place" or not isinstance(model.llm, CausalLM):
        return "the class puts visual tokens in place of the mark, before a causal language model"
    if not isinstance(encoder, VisionEncoder) or encoder.class_token or len(encoder.layers) != 1:
        return "the class reads the patches of one layer of one vision tower"
    if encoder.final_norm and not normed and _family(model) != "internvl_vision":
        return "the class reads a layer before the tower's final norm (final_norm=False)"
    return ""


def _one_view_lacks(model: Model) -> str:
    if not isinstance(model.encoder, VisionEncoder) or not isinstance(model.encoder.tiles, OneView):
        return "the class sees one view of an image"
    if not isinstance(model.arrange, Concatenate):
        return f"the class has no arrangement such as {_named(model.arrange)}"
    return ""


def _family(model: Model) -> str:
    encoder = model.encoder
    return str(read_config(resolve_model(encoder.name)).model_type) if isinstance(encoder, VisionEncoder) else ""


def _named(config: object) -> str:
    return type(config).__name__ if not isinstance(config, (MlpConfig, LinearConfig)) else repr(config)


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
        "hidden_act": _ACTIVATIONS[connector.activation],
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


_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu-tanh": "gelu_pytorch_tanh"}


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


GOALS: dict[str, Goal] = {
    "llava": Goal(
        class_name="LlavaForConditionalGeneration", lacks=_llava_lacks, make=_make_llava, processor=_llava_ready
    ),
    "llava-next": Goal(
        class_name="LlavaNextForConditionalGeneration",
        lacks=_llava_next_lacks,
        make=_make_llava,
        processor=_llava_ready,
    ),
    "blip2": Goal(
        class_name="Blip2ForConditionalGeneration",
        lacks=_blip_lacks,
        make=_make_blip,
        processor=_blip_ready,
        chats=False,
    ),
    "instructblip": Goal(
        class_name="InstructBlipForConditionalGeneration",
        lacks=_instructblip_lacks,
        make=_make_blip,
        processor=_blip_ready,
        chats=False,
        pads=False,
    ),
    "internvl": Goal(
        class_name="InternVLForConditionalGeneration", lacks=_internvl_lacks, make=_make_internvl, processor=None
    ),
    "idefics2": Goal(
        class_name="Idefics2ForConditionalGeneration",
        lacks=_idefics2_lacks,
        make=_make_idefics2,
        processor=_idefics2_ready,
    ),
}
"""Every class that a run can go out to, by the name that `--to` takes."""
