"""Which native class a model can go out as, and where none can hold it, which is nearest."""

from isthmus.config import did_you_mean
from isthmus.encoders.tiles import AnyresTiles
from isthmus.encoders.vision import VisionEncoder
from isthmus.exchange.outgoing import GOALS, Goal
from isthmus.model import Model

NEAREST = {
    "IdentityConfig": "llava",
    "LinearConfig": "llava",
    "MlpConfig": "llava",
    "AveragePoolConfig": "llava",
    "ChannelConcatConfig": "llava",
    "HoneybeeMlpConfig": "llava",
    "PixelShuffleConfig": "internvl",
    "QFormerConfig": "blip2",
    "InstructQFormerConfig": "instructblip",
    "VideoQFormerConfig": "blip2",
    "Idefics2Config": "idefics2",
    "PerceiverConfig": "idefics2",
    "QwenVlConfig": "idefics2",
    "AttentionPoolConfig": "idefics2",
    "HoneybeeResamplerConfig": "idefics2",
    "MatryoshkaConfig": "idefics2",
}
"""By connector, the export whose connector is of the same idea."""

NO_EXPORT = {
    "Qwen3VlConfig": "Qwen3VLForConditionalGeneration",
    "WindowedQFormerConfig": "Granite4VisionForConditionalGeneration",
    "WindowedStreamsConfig": "Granite4VisionForConditionalGeneration",
    "GatedCrossAttentionConfig": "IdeficsForVisionText2Text",
}
"""By connector, the class of `transformers` that has it, to which no export is written here."""


def find_goal(to: str, model: Model) -> Goal:
    """The native class of this name.

    Raises:
        ValueError: no such name, or the class cannot hold the model; names those that can, or the nearest.
    """
    if to not in GOALS:
        raise ValueError(f"No export to {to!r}.{did_you_mean(to, GOALS)} There are: {', '.join(GOALS)}.")
    lacking = lacks(to, model)
    if not lacking:
        return GOALS[to]
    able = [name for name in GOALS if not lacks(name, model)]
    way_out = f"It can go out as {able[0]!r}." if able else f"{_none(to, model)} Its run folder is the way to use it."
    raise ValueError(f"{GOALS[to].class_name} cannot hold this model: {lacking}. {way_out}")


def lacks(to: str, model: Model) -> str:
    """What of a model a class cannot hold, in words; empty when it can."""
    if model.branches:
        return f"it has no branch of its own for {' and '.join(model.branches)}"
    return GOALS[to].lacks(model)


def _none(to: str, model: Model) -> str:
    """That no export can hold the model, and the nearest class where that says more than what `to` lacks."""
    none = "No class of transformers that is known here can"
    kind = type(model.connector).__name__
    if model.branches:
        return f"{none}."
    if kind in NO_EXPORT:
        return f"Its connector is that of {NO_EXPORT[kind]}, to which no export is written here."
    if kind not in NEAREST:
        return f"{none}, and none has a connector like {kind}."
    name = NEAREST[kind]
    encoder = model.encoder
    if kind == "MlpConfig" and isinstance(encoder, VisionEncoder) and isinstance(encoder.tiles, AnyresTiles):
        name = "llava-next"
    if name == to:
        return f"{none}; this is the nearest."
    return f"{none}; the nearest: {name!r} ({lacks(name, model)})."
