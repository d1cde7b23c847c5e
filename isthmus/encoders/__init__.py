"""Encoders: an image becomes `Features`, once, and the answer is kept."""

from isthmus.encoders.audio import AudioEncoder
from isthmus.encoders.base import Encoder, EncoderConfig, Prepared, Untiled
from isthmus.encoders.bound import BoundEncoder
from isthmus.encoders.cache import FeatureCache
from isthmus.encoders.cached import CachedEncoder, ImageSource
from isthmus.encoders.paired import PairedEncoder
from isthmus.encoders.stacked import StackedVisionEncoder
from isthmus.encoders.tiles import TILINGS, TilingConfig
from isthmus.encoders.video import VideoEncoder
from isthmus.encoders.vision import VisionEncoder

ENCODERS: dict[str, type[EncoderConfig]] = {
    "vision": VisionEncoder,
    "stacked": StackedVisionEncoder,
    "paired": PairedEncoder,
    "video": VideoEncoder,
    "audio": AudioEncoder,
    "bound": BoundEncoder,
}
"""Every encoder config, by name. A new encoder is one file and two lines here."""

__all__ = [
    "ENCODERS",
    "TILINGS",
    "AudioEncoder",
    "BoundEncoder",
    "CachedEncoder",
    "Encoder",
    "EncoderConfig",
    "FeatureCache",
    "ImageSource",
    "PairedEncoder",
    "Prepared",
    "StackedVisionEncoder",
    "TilingConfig",
    "Untiled",
    "VideoEncoder",
    "VisionEncoder",
]
