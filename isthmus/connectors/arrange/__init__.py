"""Arrangements: the visual tokens of an input's views become one sequence."""

from isthmus.connectors.arrange.anyres import Anyres
from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.connectors.arrange.by_input import ByInput
from isthmus.connectors.arrange.channel_stack import ChannelStack
from isthmus.connectors.arrange.concatenate import Concatenate
from isthmus.connectors.arrange.deepstack import DeepStack
from isthmus.connectors.arrange.frame_pool import FramePool
from isthmus.connectors.arrange.levels import Levels
from isthmus.connectors.arrange.separated import Separated

ARRANGEMENTS: dict[str, type[ArrangementConfig]] = {
    "concatenate": Concatenate,
    "anyres": Anyres,
    "separated": Separated,
    "deepstack": DeepStack,
    "channel-stack": ChannelStack,
    "levels": Levels,
    "frame-pool": FramePool,
    "by-input": ByInput,
}
"""Every arrangement, by name."""

__all__ = [
    "ARRANGEMENTS",
    "Anyres",
    "Arrangement",
    "ArrangementConfig",
    "ByInput",
    "ChannelStack",
    "Concatenate",
    "DeepStack",
    "FramePool",
    "Levels",
    "Separated",
]
