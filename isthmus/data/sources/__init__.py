"""Where samples come from. A new source is one file with a config class, and its line in `SOURCES`."""

from isthmus.data.frames import SAMPLINGS
from isthmus.data.sources.base import Dataset, Source, SourceConfig
from isthmus.data.sources.caption_file import CaptionFile
from isthmus.data.sources.clip_file import ClipFile
from isthmus.data.sources.clip_windows import ClipWindows
from isthmus.data.sources.document_file import DocumentFile
from isthmus.data.sources.drawn_digits import DrawnDigits
from isthmus.data.sources.esc10 import Esc10
from isthmus.data.sources.formatted import Formatted
from isthmus.data.sources.interleaved import Interleaved
from isthmus.data.sources.llava_file import LlavaFile
from isthmus.data.sources.mosaics import Mosaics
from isthmus.data.sources.moving_things import MovingThings
from isthmus.data.sources.nlvr import NlvrBoxes
from isthmus.data.sources.real_clips import RealClips
from isthmus.data.sources.small_things import SmallThings
from isthmus.data.sources.split_captions import SplitCaptions
from isthmus.data.sources.spoken_digits import SpokenDigits
from isthmus.data.sources.tar_shards import TarShards
from isthmus.data.sources.text_file import TextFile
from isthmus.data.sources.textbook import Textbook
from isthmus.data.sources.world import WorldStyle
from isthmus.data.sources.world_boxes import WorldBoxes
from isthmus.data.sources.world_chat import WorldCaptions, WorldChat
from isthmus.data.sources.world_twins import WorldTwins

SOURCES: tuple[type[SourceConfig], ...] = (
    WorldChat,
    WorldCaptions,
    WorldBoxes,
    WorldTwins,
    SmallThings,
    Textbook,
    NlvrBoxes,
    SpokenDigits,
    DrawnDigits,
    Esc10,
    RealClips,
    MovingThings,
    CaptionFile,
    ClipFile,
    ClipWindows,
    LlavaFile,
    DocumentFile,
    TarShards,
    Interleaved,
    Mosaics,
    TextFile,
    Formatted,
    SplitCaptions,
)

TYPES: dict[str, type] = {made.__name__: made for made in (*SOURCES, Source, WorldStyle, *SAMPLINGS.values())}
"""Every config class of this room that may be read from JSON."""

__all__ = [
    "SOURCES",
    "TYPES",
    "CaptionFile",
    "ClipFile",
    "ClipWindows",
    "Dataset",
    "DocumentFile",
    "DrawnDigits",
    "Esc10",
    "Formatted",
    "Interleaved",
    "LlavaFile",
    "Mosaics",
    "MovingThings",
    "NlvrBoxes",
    "RealClips",
    "SmallThings",
    "Source",
    "SourceConfig",
    "SplitCaptions",
    "SpokenDigits",
    "TarShards",
    "TextFile",
    "Textbook",
    "WorldBoxes",
    "WorldCaptions",
    "WorldChat",
    "WorldStyle",
    "WorldTwins",
]
