"""A model of `transformers` as parts of ours, from its config.json alone: what `isthmus cost HUB-ID` counts.

Llava, LlavaNext, InternVL and Blip2 (with a decoder-only language model) are understood; of any other the parts can be
named one by one. Checked against: the parameter counts of the native classes on the meta device (tests/measure).
"""

from dataclasses import replace
from typing import Any, Literal

import transformers

from isthmus.connectors import MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import Anyres, Concatenate
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles
from isthmus.encoders.towers import native_size
from isthmus.llms import CausalLM
from isthmus.measure.known import local_name
from isthmus.model import Model
from isthmus.weights import resolve_model

Precision = Literal["float32", "bfloat16", "float16"]
KINDS = ("llava", "llava_next", "internvl", "blip-2")


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
    llm = CausalLM(name=place, precision=precision)
    if config.model_type == "blip-2":
        return Model(encoder=_tower(place, config, precision, (-1,), True), connector=_qformer(config), llm=llm)
    layer = config.vision_feature_layer
    layers = tuple(layer) if isinstance(layer, (list, tuple)) else (layer,)
    kept = config.vision_feature_select_strategy == "full"
    encoder = _tower(place, config, precision, layers, kept)
    if config.model_type == "internvl":
        shuffle = PixelShuffleConfig(factor=round(1 / config.downsample_ratio))
        tiled = replace(encoder, tiles=DynamicTiles(), final_norm=layers == (-1,))
        return Model(encoder=tiled, connector=shuffle, arrange=Concatenate(), llm=llm)
    if config.model_type == "llava":
        return Model(encoder=encoder, connector=MlpConfig(), arrange=Concatenate(), llm=llm)
    side = encoder.image_size
    grids = tuple((width // side, height // side) for height, width in config.image_grid_pinpoints)
    tiled = replace(encoder, tiles=AnyresTiles(grids=grids))
    return Model(encoder=tiled, connector=MlpConfig(), arrange=Anyres(digits=7), llm=llm)


def _tower(place: str, config: Any, precision: Precision, layers: tuple[int, ...], class_token: bool) -> VisionEncoder:
    side = native_size(config.vision_config)
    return VisionEncoder(name=place, image_size=side, layers=layers, class_token=class_token, precision=precision)


def _qformer(config: Any) -> QFormerConfig:
    if not config.use_decoder_only_language_model:
        raise ValueError("Of Blip2 models those with a decoder-only language model (OPT) are understood here.")
    inner = config.qformer_config
    return QFormerConfig(
        num_queries=config.num_query_tokens,
        width=inner.hidden_size,
        layers=inner.num_hidden_layers,
        heads=inner.num_attention_heads,
        ffn_width=inner.intermediate_size,
        cross_every=inner.cross_attention_frequency,
        dropout=inner.hidden_dropout_prob,
    )


def _precision(config: Any) -> Precision:
    """The number format that the weights were saved in; float32 where the config does not say."""
    said = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    known: dict[str, Precision] = {"torch.bfloat16": "bfloat16", "torch.float16": "float16"}
    return known.get(str(said), "float32")
