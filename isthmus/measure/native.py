"""A model of `transformers` as parts of ours, from its config.json alone: what `isthmus cost HUB-ID` counts.

Llava, VipLlava (of one vision layer), LlavaNext, InternVL, Blip2, InstructBlip, Idefics2 and PerceptionLM (without
pooling) are understood; of any other the parts can be named one by one. Checked against: the parameter counts of the
native classes on the meta device (tests/measure).
"""

from dataclasses import replace
from typing import Any, Literal

import transformers

from isthmus.connectors import (
    ConnectorConfig,
    Idefics2Config,
    InstructQFormerConfig,
    MlpConfig,
    PixelShuffleConfig,
    QFormerConfig,
)
from isthmus.connectors.arrange import Anyres, Concatenate
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles
from isthmus.encoders.towers import FAMILIES, native_size
from isthmus.llms import CausalLM, EncoderDecoderLM, LLMConfig
from isthmus.measure.known import local_name
from isthmus.model import Model
from isthmus.weights import resolve_model

Precision = Literal["float32", "bfloat16", "float16"]
KINDS = ("llava", "vipllava", "llava_next", "internvl", "blip-2", "instructblip", "idefics2", "perception_lm")


def native_model(name: str) -> Model:
    """The model of a hub id or folder. Shapes known to the package are read from there, so common ids need no network.

    Raises:
        ValueError: no readable config, or a kind of model that is not understood here.
    """
    place = resolve_model(local_name(name))
    try:
        config: Any = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"Cannot read the config of {name!r}: {str(error).splitlines()[0]} Give a recipe from `isthmus list`, a "
            f"run folder, a model folder, or a hub id that this machine can reach."
        ) from error
    if config.model_type not in KINDS:
        raise ValueError(
            f"{name!r} is a {config.model_type!r} model; a whole model of {', '.join(KINDS)} is understood here. Take "
            f"a recipe and name the parts: --model.encoder.name, --model.connector, --model.llm.name."
        )
    precision = _precision(config)
    if config.model_type in ("blip-2", "instructblip"):
        return _soft_prompt(place, config, precision)
    llm = CausalLM(name=place, precision=precision)
    if config.model_type == "idefics2":
        tower = replace(_tower(place, config, precision, (-1,), False), final_norm=True)
        return Model(encoder=tower, connector=_idefics2(config), llm=llm)
    if config.model_type == "perception_lm":
        return Model(encoder=_perception_tower(name, place, config, precision), connector=MlpConfig(depth=2), llm=llm)
    layer = config.vision_feature_layer
    layers = tuple(layer) if isinstance(layer, (list, tuple)) else (layer,)
    kept = getattr(config, "vision_feature_select_strategy", "default") == "full"
    encoder = _tower(place, config, precision, layers, kept)
    if config.model_type == "internvl":
        shuffle = PixelShuffleConfig(factor=round(1 / config.downsample_ratio))
        tiled = replace(encoder, tiles=DynamicTiles(), final_norm=layers == (-1,))
        return Model(encoder=tiled, connector=shuffle, arrange=Concatenate(), llm=llm)
    if config.model_type == "vipllava":
        if len(layers) > 1:
            raise ValueError(
                f"{name!r} joins the vision layers {layers} behind one norm: VipLlava of one is understood."
            )
        return Model(encoder=replace(encoder, final_norm=True), connector=MlpConfig(), llm=llm)
    if config.model_type == "llava":
        return Model(encoder=encoder, connector=MlpConfig(), arrange=Concatenate(), llm=llm)
    side = encoder.image_size
    grids = tuple((width // side, height // side) for height, width in config.image_grid_pinpoints)
    tiled = replace(encoder, tiles=AnyresTiles(grids=grids))
    return Model(encoder=tiled, connector=MlpConfig(), arrange=Anyres(digits=7), llm=llm)


def _tower(place: str, config: Any, precision: Precision, layers: tuple[int, ...], class_token: bool) -> VisionEncoder:
    side = native_size(config.vision_config)
    return VisionEncoder(name=place, image_size=side, layers=layers, class_token=class_token, precision=precision)


def _perception_tower(name: str, place: str, config: Any, precision: Precision) -> VisionEncoder:
    """As `isthmus import` takes it: no pooling behind the MLP, all tokens in front of the patches dropped."""
    vision, pooled = config.vision_config, config.projector_pooling_ratio
    if pooled != 1 or vision.model_type not in FAMILIES:
        raise ValueError(
            f"{name!r} pools by {pooled} behind the MLP of its {vision.model_type!r} tower. A PerceptionLM with "
            f"projector_pooling_ratio=1 and one of these towers is understood: {', '.join(FAMILIES)}."
        )
    if FAMILIES[vision.model_type].prefix(vision) != int(config.vision_use_cls_token):
        raise ValueError(
            f"{name!r} says vision_use_cls_token={config.vision_use_cls_token}, but its tower has "
            f"{FAMILIES[vision.model_type].prefix(vision)} tokens in front of the patches: both or none is understood."
        )
    tower = _tower(place, config, precision, (-1,), False)
    return replace(tower, final_norm=vision.model_type != "clip_vision_model")


def _soft_prompt(place: str, config: Any, precision: Precision) -> Model:
    """Blip2 and InstructBlip, before a decoder or in front of an encoder-decoder."""
    made = CausalLM if config.use_decoder_only_language_model else EncoderDecoderLM
    llm: LLMConfig = made(name=place, precision=precision)
    encoder = _tower(place, config, precision, (-1,), True)
    return Model(encoder=encoder, connector=_qformer(config), llm=llm, placement="before-bos")


def _qformer(config: Any) -> ConnectorConfig:
    inner = config.qformer_config
    reads = config.model_type == "instructblip"
    qformer = QFormerConfig(
        num_queries=config.num_query_tokens,
        width=inner.hidden_size,
        layers=inner.num_hidden_layers,
        heads=inner.num_attention_heads,
        ffn_width=inner.intermediate_size,
        cross_every=inner.cross_attention_frequency,
        dropout=inner.hidden_dropout_prob,
        text=reads,
        vocabulary=inner.vocab_size,
        positions=inner.max_position_embeddings,
    )
    return InstructQFormerConfig(qformer=qformer, max_text_tokens=min(128, qformer.positions)) if reads else qformer


def _idefics2(config: Any) -> Idefics2Config:
    inner = config.perceiver_config
    return Idefics2Config(
        num_latents=inner.resampler_n_latents,
        layers=inner.resampler_depth,
        heads=inner.resampler_n_heads,
        kv_heads=inner.num_key_value_heads,
        head_width=inner.resampler_head_dim,
        project_width=config.get_text_config().intermediate_size,
    )


def _precision(config: Any) -> Precision:
    """The number format that the weights were saved in; float32 where the config does not say."""
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    known: dict[str, Precision] = {"torch.bfloat16": "bfloat16", "torch.float16": "float16"}
    return known.get(str(said), "float32")
