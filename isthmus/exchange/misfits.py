"""Why a model of ours cannot be one of a native class: the first thing that the class does not hold, in words.

Sources: the classes themselves, transformers 5.23. One function a class; an empty answer means that it can.
"""

from dataclasses import replace

from isthmus.connectors import Idefics2Config, LinearConfig, MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import Anyres, Concatenate
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.prompts import Bounded, PromptStyle, QuestionAnswer
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles, OneView
from isthmus.encoders.towers import read_config
from isthmus.encoders.vision import VisionEncoder
from isthmus.llms import CausalLM
from isthmus.llms.base import read_config as read_llm_config
from isthmus.model import Model
from isthmus.weights import resolve_model

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu-tanh": "gelu_pytorch_tanh"}
"""Our names of activations, and those of `transformers`."""


def llava_lacks(model: Model) -> str:
    """What Llava cannot hold of a model."""
    if not isinstance(model.connector, MlpConfig) or model.connector.depth != 2:
        return f"Llava's connector is MlpConfig(depth=2), this is {_named(model.connector)}"
    return _in_place_lacks(model) or _one_view_lacks(model)


def vipllava_lacks(model: Model) -> str:
    """What VipLlava cannot hold: it is Llava with a norm before the MLP, the place of the tower's own last norm."""
    if not isinstance(model.connector, MlpConfig) or model.connector.depth != 2:
        return f"VipLlava's connector is MlpConfig(depth=2), this is {_named(model.connector)}"
    if _family(model) != "clip_vision_model" or not isinstance(model.encoder, VisionEncoder):
        return f"VipLlava drops the class token of CLIP's tower, this is {_family(model)!r}"
    if not model.encoder.final_norm:
        return "VipLlava norms what it reads of the tower (final_norm=True)"
    return _in_place_lacks(model, normed=True) or _one_view_lacks(model)


def llava_next_lacks(model: Model) -> str:
    """What LlavaNext cannot hold of a model."""
    encoder, arrange = model.encoder, model.arrange
    if not isinstance(model.connector, MlpConfig) or model.connector.depth != 2:
        return f"LlavaNext's connector is MlpConfig(depth=2), this is {_named(model.connector)}"
    if not isinstance(encoder, VisionEncoder) or not isinstance(encoder.tiles, AnyresTiles) or not encoder.tiles.whole:
        return "LlavaNext cuts images by AnyresTiles(whole=True)"
    if not isinstance(arrange, Anyres) or replace(arrange, digits=7) != Anyres(digits=7):
        return f"LlavaNext's arrangement is Anyres(unpad=True, newline=True, digits=7), this is {_named(arrange)}"
    if arrange.digits not in (None, 7):
        return f"LlavaNext rounds to 7 digits before it truncates, this is {_named(arrange)}"
    if encoder.fit != "squash":
        return f"LlavaNext squashes the whole image, this encoder's fit is {encoder.fit!r}"
    return _in_place_lacks(model)


def blip_lacks(model: Model) -> str:
    """What Blip2 cannot hold of a model."""
    wanted = "Blip2's connector is QFormerConfig(text=False)"
    if not isinstance(model.connector, QFormerConfig) or model.connector.text or model.connector.embedding:
        return f"{wanted}, this is {_named(model.connector)}"
    return _eva_lacks(model, model.connector)


def instructblip_lacks(model: Model) -> str:
    """What InstructBlip cannot hold of a model."""
    if not isinstance(model.connector, InstructQFormerConfig):
        return f"InstructBlip's connector is InstructQFormerConfig, this is {_named(model.connector)}"
    if not _asks_alone(model.prompt):
        return (
            "InstructBlip gives its Q-Former the language model's prompt, which has to be the question alone: "
            "prompt=QuestionAnswer(question='{}', after_images='')"
        )
    return _eva_lacks(model, model.connector.qformer)


def _asks_alone(prompt: PromptStyle) -> bool:
    """Whether the text is the question; space before it is nothing to the Q-Former, whose words come without."""
    return isinstance(prompt, QuestionAnswer) and prompt.question == "{}" and not prompt.after_images.strip()


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


def internvl_lacks(model: Model) -> str:
    """What InternVL cannot hold of a model."""
    connector = model.connector
    if not isinstance(connector, PixelShuffleConfig) or connector.order != "v2":
        return f"InternVL's connector is PixelShuffleConfig(order='v2'), this is {_named(connector)}"
    family = _family(model)
    if family != "internvl_vision":
        return f"InternVL holds InternViT alone (internvl_vision), this is {family!r}"
    return _in_place_lacks(model) or _dynamic_lacks(model)


def _dynamic_lacks(model: Model) -> str:
    """InternVL's processor squashes an image to one view, or cuts it as `DynamicTiles` does.

    It tries grids of one number of tiles in another order, which counts only where two of them are equally near and
    none is nearer: from one tile on there is always a nearer one.
    """
    assert isinstance(model.encoder, VisionEncoder)
    tiles = model.encoder.tiles
    dynamic = isinstance(tiles, DynamicTiles) and tiles.min_tiles == 1 and tiles.thumbnail
    if not dynamic and not isinstance(tiles, OneView):
        return f"InternVL sees one view, or cuts images by DynamicTiles(min_tiles=1, thumbnail=True), this is {tiles}"
    if model.encoder.fit != "squash":
        return f"InternVL squashes images, this encoder's fit is {model.encoder.fit!r}"
    return _concatenate_lacks(model)


def idefics2_lacks(model: Model) -> str:
    """What Idefics2 cannot hold of a model."""
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
    if (connector.project_width, ACTIVATIONS[connector.project_activation]) != wanted:
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
    return _concatenate_lacks(model)


def _concatenate_lacks(model: Model) -> str:
    if not isinstance(model.arrange, Concatenate):
        return f"the class has no arrangement such as {_named(model.arrange)}"
    return ""


def _family(model: Model) -> str:
    encoder = model.encoder
    return str(read_config(resolve_model(encoder.name)).model_type) if isinstance(encoder, VisionEncoder) else ""


def _named(config: object) -> str:
    return type(config).__name__ if not isinstance(config, (MlpConfig, LinearConfig, Anyres)) else repr(config)
