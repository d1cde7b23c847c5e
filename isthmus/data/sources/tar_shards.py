"""Images with texts in tar files, as WebDataset packs them: `00007.jpg` beside `00007.txt` or `00007.json`.

Members whose names are equal up to the first dot of the file name are one sample. `.txt` is a caption; `.json` is an
object as a line of a caption file has it (`{"text": ...}`, or `"caption"`, without the image), or of a LLaVA file
(`conversations`). Format: the WebDataset project (webdataset/webdataset). Differs: shards are not streamed in a random
order but read in place, by number, so that a mixture and a resumed run are exact; so they must not be compressed.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.images import PackedImage, packed_content
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import MAX_LINE_BYTES, encodable, parse_object, text_of
from isthmus.data.sources.llava_file import turns_of

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("txt", "json")


@dataclass(frozen=True, kw_only=True)
class TarShards(SourceConfig):
    """The samples of one uncompressed tar file or of many, `shards/*.tar`, in the order of their names."""

    path: str
    question: str = ""
    """What the user says after the image of a caption; empty for a bare caption."""

    def build(self) -> Dataset:
        """Reads the headers of every shard. Raises ValueError when there is none, or one that cannot be read."""
        path = Path(self.path)
        shards = sorted(path.parent.glob(path.name))
        if not shards:
            raise ValueError(f"There is no file {self.path!r}. Give a tar file, or a pattern such as shards/*.tar.")
        return _Shards(self, [sample for shard in shards for sample in _samples(shard)])


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int


@dataclass(frozen=True)
class _Packed:
    """Where the parts of one sample lie, by their endings."""

    shard: str
    key: str
    parts: dict[str, _Member]


class _Shards:
    def __init__(self, config: TarShards, samples: list[_Packed]) -> None:
        self._config = config
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        packed = self._samples[checked(index, len(self))]
        where = f"{Path(packed.shard).name}, sample {packed.key!r}"
        ending = next((ending for ending in TEXTS if ending in packed.parts), None)
        image = next((ending for ending in IMAGES if ending in packed.parts), None)
        if ending is None or image is None:
            raise ValueError(
                f"{where} has {', '.join(sorted(packed.parts))}: it needs a picture (.{', .'.join(IMAGES)}) and a "
                f".txt or .json beside it, named alike."
            )
        turns = self._turns(_text(packed, ending, where), ending, where)
        picture = packed.parts[image]
        ref = PackedImage(archive=packed.shard, offset=picture.offset, size=picture.size)
        return Sample(id=f"{Path(packed.shard).stem}/{packed.key}", turns=turns, images=(ref,))

    def _turns(self, content: bytes, ending: str, where: str) -> tuple[Turn, ...]:
        if ending == "json":
            row: dict[str, Any] = parse_object(content, where)
            if "conversations" in row:
                return turns_of(row, where)
            caption = text_of(row, "text" if "text" in row else "caption", where)
        else:
            try:
                caption = encodable(content.decode("utf-8"), where)
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
        if not caption.strip() or IMAGE_MARK in caption:
            raise ValueError(f"{where}: a caption is text without {IMAGE_MARK}, got {caption[:80]!r}.")
        asked = f"{IMAGE_MARK}\n{self._config.question}" if self._config.question else IMAGE_MARK
        return Turn(role="user", text=asked), Turn(role="assistant", text=caption.strip())


def _text(packed: _Packed, ending: str, where: str) -> bytes:
    member = packed.parts[ending]
    if member.size > MAX_LINE_BYTES:
        raise ValueError(f"{where} has a .{ending} of {member.size} bytes, more than the {MAX_LINE_BYTES} allowed.")
    return packed_content(packed.shard, member.offset, member.size, where)


def _samples(shard: Path) -> Iterator[_Packed]:
    """The samples of one shard in their order; whatever is no plain file in it is passed over."""
    found: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if member.isreg() and not member.issparse() and stem and ending:
                    key = f"{folder}/{stem}" if folder else stem
                    found.setdefault(key, {})[ending.lower()] = _Member(member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ValueError(
            f"{shard.name} is no tar file that can be read in place ({error}). Unpack it if it is compressed "
            f"(gunzip {shard.name})."
        ) from error
    return (_Packed(str(shard), key, parts) for key, parts in found.items())
