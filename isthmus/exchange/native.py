"""From a model class of `transformers` to the parts of ours, and the checks that nothing of it is left behind.

Sources: the classes themselves, transformers 5.23. One function a class; each refuses what the class can hold and ours
cannot, naming the option.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from isthmus.connectors import (
    ConnectorConfig,
    Idefics2Config,
    MlpConfig,
    PixelShuffleConfig,
    QFormerConfig,
)
from isthmus.connectors.arrange import Anyres
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.connectors.key_map import KeyMap
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below, connector_part
from isthmus.data.prompts import Bounded, ChatTemplate, PromptStyle, QuestionAnswer, Vicuna
from isthmus.encoders import VisionEncoder
from isthmus.encoders.pixels import Fit
from isthmus.encoders.tiles import AnyresTiles
from isthmus.exchange.folders import READER_FOLDER, whole_causal
from isthmus.exchange.key_maps import INTERNVL_NATIVE, TWO_LINEAR
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.model import Model


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A native model taken apart. `model` names no folder yet; `connector` and `arrange` are under our names."""

    model: Model
    tower: nn.Module
    lm: nn.Module
    connector: dict[str, Tensor]
    arrange: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Native:
    """One class of `transformers`: how it is taken apart, and the prompt style it is usually asked in."""

    class_name: str
    split: Callable[[Any, Fit, PromptStyle], Parts]
    prompt: PromptStyle


def renamed(module: nn.Module, keys: KeyMap) -> dict[str, Tensor]:
    """The weights of a native module under our names."""
    return keys.to_ours(module.state_dict())


def _llava(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    config, inner = native.config, native.model
    _want(config, "projector_hidden_act", "gelu")
    _want(config, "multimodal_projector_bias", True)
    layer = _one_layer(config)
    encoder = _encoder(config.vision_config, fit, (layer,), config.vision_feature_select_strategy)
    return _in_place(native, encoder, MlpConfig(depth=2), renamed(inner.multi_modal_projector, TWO_LINEAR), prompt)


def _llava_next(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    parts, config = _llava(native, "squash", prompt), native.config
    encoder = parts.model.encoder
    assert isinstance(encoder, VisionEncoder)
    side = encoder.image_size
    if any(pixels % side for size in config.image_grid_pinpoints for pixels in size):
        raise ValueError(
            f"Its image_grid_pinpoints {config.image_grid_pinpoints} are no multiples of its {side} px tile."
        )
    grids = tuple((width // side, height // side) for height, width in config.image_grid_pinpoints)
    tiled = replace(encoder, tiles=AnyresTiles(grids=grids))
    newline = {"newline": native.model.image_newline.detach()}
    model = replace(parts.model, encoder=tiled, arrange=Anyres(digits=7))
    return replace(parts, model=model, arrange=newline)


def _internvl(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    config, inner = native.config, native.model
    _want(config, "projector_hidden_act", "gelu")
    layer = _one_layer(config)
    strategy = config.vision_feature_select_strategy
    encoder = _encoder(config.vision_config, fit, (layer,), strategy, final_norm=layer == -1)
    connector = PixelShuffleConfig(factor=round(1 / config.downsample_ratio), order="v2")
    return _in_place(native, encoder, connector, renamed(inner.multi_modal_projector, INTERNVL_NATIVE), prompt)


def _perception(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    config, inner = native.config, native.model
    if config.projector_pooling_ratio != 1:
        raise ValueError(
            f"This PerceptionLM pools by {config.projector_pooling_ratio} after its MLP; AveragePoolConfig pools "
            f"before it, which is another function. Only projector_pooling_ratio=1 can be imported."
        )
    strategy = "default" if config.vision_use_cls_token else "full"
    normed = config.vision_config.model_type != "clip_vision_model"  # whose norm is for the pooled output alone
    encoder = _encoder(config.vision_config, fit, (-1,), strategy, final_norm=normed)
    return _in_place(native, encoder, MlpConfig(depth=2), renamed(inner.multi_modal_projector, TWO_LINEAR), prompt)


def _blip2(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    _want(native.config.qformer_config, "use_qformer_text_input", False)
    connector = _qformer(native.config, text=False)
    weights = BLIP2_NATIVE.to_ours(connector_part(_own(native), BLIP2_NATIVE, text=False))
    return _in_front(native, fit, prompt, connector, weights, native.vision_model)


def _instructblip(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    config = native.config
    qformer = _qformer(config, text=True)
    connector = InstructQFormerConfig(qformer=qformer, max_text_tokens=min(128, qformer.positions))
    keys = below(INSTRUCTBLIP_NATIVE, "qformer")
    weights = keys.to_ours(connector_part(_own(native), keys, text=True))
    options = config.vision_config.to_dict()
    options.pop("model_type")
    tower = _same_weights(transformers.Blip2VisionModel, transformers.Blip2VisionConfig(**options), native.vision_model)
    return _in_front(native, fit, prompt, connector, weights, tower)


def _qformer(config: Any, *, text: bool) -> QFormerConfig:
    qformer = config.qformer_config
    _want(qformer, "hidden_act", "gelu")
    _want(qformer, "layer_norm_eps", 1e-12)
    return QFormerConfig(
        num_queries=config.num_query_tokens,
        width=qformer.hidden_size,
        layers=qformer.num_hidden_layers,
        heads=qformer.num_attention_heads,
        ffn_width=qformer.intermediate_size,
        cross_every=qformer.cross_attention_frequency,
        dropout=qformer.hidden_dropout_prob,
        vision_eps=config.vision_config.layer_norm_eps,
        text=text,
        text_model=READER_FOLDER if text else None,
        vocabulary=qformer.vocab_size,
        positions=qformer.max_position_embeddings,
    )


def _own(native: Any) -> dict[str, Tensor]:
    """The weights outside of the tower's blocks and the language model."""
    return {
        key: value
        for key, value in native.state_dict().items()
        if not key.startswith(("vision_model.", "language_model.")) or key.startswith("vision_model.post_layernorm.")
    }


def _in_front(
    native: Any, fit: Fit, prompt: PromptStyle, connector: ConnectorConfig, weights: dict[str, Tensor], tower: nn.Module
) -> Parts:
    """A class with its visual tokens in front of the text, and a whole language model inside."""
    config = native.config
    return Parts(
        model=Model(
            encoder=VisionEncoder(image_size=_side(config.vision_config), layers=(-1,), class_token=True, fit=fit),
            connector=connector,
            llm=_llm(config.text_config, encoder_decoder=not config.use_decoder_only_language_model),
            placement="before-bos",
            prompt=prompt,
        ),
        tower=tower,
        lm=native.language_model,
        connector=weights,
    )


def _idefics2(native: Any, fit: Fit, prompt: PromptStyle) -> Parts:
    config, inner = native.config, native.model
    perceiver, vision = config.perceiver_config, config.vision_config
    connector = Idefics2Config(
        num_latents=perceiver.resampler_n_latents,
        layers=perceiver.resampler_depth,
        heads=perceiver.resampler_n_heads,
        kv_heads=perceiver.num_key_value_heads,
        head_width=perceiver.resampler_head_dim,
        project_width=config.text_config.intermediate_size,
        project_activation=_activation(config.text_config.hidden_act),
        activation=_activation(perceiver.hidden_act),
        norm_eps=perceiver.rms_norm_eps,
    )
    encoder = _encoder(vision, fit, (-1,), "full", final_norm=True, family="siglip_vision_model")
    names = {"num_channels", "hidden_act", "layer_norm_eps", "attention_dropout", "patch_size", "image_size"}
    sizes = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
    siglip = transformers.SiglipVisionConfig(
        **{name: getattr(vision, name) for name in names | sizes}, vision_use_head=False
    )
    tower = _same_weights(transformers.SiglipVisionModel, siglip, inner.vision_model)
    return _in_place(native, encoder, connector, renamed(inner.connector, IDEFICS2_KEYS), prompt, tower=tower)


NATIVE: dict[str, Native] = {
    "llava": Native(class_name="LlavaForConditionalGeneration", split=_llava, prompt=Vicuna()),
    "llava_next": Native(class_name="LlavaNextForConditionalGeneration", split=_llava_next, prompt=Vicuna()),
    "blip-2": Native(class_name="Blip2ForConditionalGeneration", split=_blip2, prompt=QuestionAnswer(after_images="")),
    "instructblip": Native(
        class_name="InstructBlipForConditionalGeneration",
        split=_instructblip,
        prompt=QuestionAnswer(question="{}", after_images=""),
    ),
    "internvl": Native(
        class_name="InternVLForConditionalGeneration",
        split=_internvl,
        prompt=Bounded(style=ChatTemplate(), before="<img>", after="</img>"),
    ),
    "idefics2": Native(
        class_name="Idefics2ForConditionalGeneration", split=_idefics2, prompt=Bounded(style=ChatTemplate())
    ),
    "perception_lm": Native(
        class_name="PerceptionLMForConditionalGeneration", split=_perception, prompt=ChatTemplate()
    ),
}
"""Every class that can be imported whole, by the `model_type` of its config.json."""


def _in_place(
    native: Any,
    encoder: VisionEncoder,
    connector: ConnectorConfig,
    weights: dict[str, Tensor],
    prompt: PromptStyle,
    *,
    tower: nn.Module | None = None,
) -> Parts:
    """A class with its visual tokens in place of the mark, one decoder and one output head."""
    config, inner = native.config, native.model
    base = inner.text_model if hasattr(inner, "text_model") else inner.language_model
    return Parts(
        model=Model(encoder=encoder, connector=connector, llm=_llm(config.text_config), prompt=prompt),
        tower=inner.vision_tower if tower is None else tower,
        lm=whole_causal(config.text_config, base, native.lm_head, native.generation_config),
        connector=weights,
    )


def _llm(config: Any, *, encoder_decoder: bool = False) -> CausalLM | EncoderDecoderLM:
    longest = min(2_048, int(getattr(config, "max_position_embeddings", 2_048)))
    made = EncoderDecoderLM if encoder_decoder else CausalLM
    return made(name="", max_tokens=longest)


def _encoder(
    config: Any,
    fit: Fit,
    layers: tuple[int, ...],
    strategy: str,
    *,
    final_norm: bool = False,
    family: str | None = None,
) -> VisionEncoder:
    from isthmus.encoders.towers import FAMILIES

    family = config.model_type if family is None else family
    if family not in FAMILIES:
        raise ValueError(
            f"Its vision tower is a {family!r}, which is not among those that can be used here: {', '.join(FAMILIES)}."
        )
    prefix = FAMILIES[family].prefix(config)
    dropped = {"default": 1, "full": 0}[strategy]
    if prefix != dropped:
        raise ValueError(
            f"It drops {dropped} tokens in front of the patches (vision_feature_select_strategy={strategy!r}), but its "
            f"{family!r} tower has {prefix}: class tokens among the patches cannot be imported."
        )
    return VisionEncoder(image_size=_side(config), layers=layers, final_norm=final_norm, fit=fit)


def _same_weights(made: Any, config: Any, theirs: nn.Module) -> nn.Module:
    """A tower of another class that computes the same from the same weights."""
    with torch.device("meta"):
        tower: nn.Module = made(config)
    tower.load_state_dict(theirs.state_dict(), assign=True)
    return tower


def _want(config: Any, name: str, wanted: object) -> None:
    if getattr(config, name) != wanted:
        raise ValueError(
            f"Its config says {name}={getattr(config, name)!r}, but only {wanted!r} can be imported: our connector has "
            f"no such option."
        )


def _one_layer(config: Any) -> int:
    layer = config.vision_feature_layer
    if isinstance(layer, (list, tuple)) and len(layer) == 1:
        layer = layer[0]
    if not isinstance(layer, int):
        raise ValueError(
            f"It joins the channels of the vision layers {layer}, which cannot be imported: one layer can."
        )
    return layer


def _side(config: Any) -> int:
    size = config.image_size
    sides = {int(one) for one in size} if isinstance(size, (list, tuple)) else {int(size)}
    if len(sides) > 1:
        raise ValueError(f"Its vision tower reads images of {tuple(size)} px, but only square ones can be imported.")
    return sides.pop()


def _activation(name: str) -> Any:
    known = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu-tanh"}
    if name not in known:
        raise ValueError(f"Its connector's activation {name!r} cannot be imported; these can: {', '.join(known)}.")
    return known[name]
