"""A folder of bundled pictures: `images.bin`, their bytes one after another, and `rows.jsonl.xz`, one object for each.

The rows stand in the order of the pictures; `bytes` says how long each picture is, `split` which split it belongs to.
Thousands of small pictures would cost a tenth more as members of an archive, and four times more text uncompressed.
"""

import json
import lzma
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from isthmus.data.images import PackedImage

ROWS, IMAGES = "rows.jsonl.xz", "images.bin"
Row = dict[str, Any]


def write_packed(folder: Path, rows: Iterable[tuple[Row, bytes]]) -> None:
    """Write the pictures and their rows, which get `bytes`. Equal rows and pictures give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with (folder / IMAGES).open("wb") as pictures:
        for row, picture in rows:
            pictures.write(picture)
            lines.append(json.dumps({**row, "bytes": len(picture)}, ensure_ascii=False, separators=(",", ":")) + "\n")
    (folder / ROWS).write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))


@lru_cache(maxsize=4)
def read_packed(folder: Path) -> tuple[tuple[Row, PackedImage], ...]:
    """Every row with its picture, which is read when it is loaded. The rows are shared: leave them as they are."""
    found, offset = [], 0
    for line in lzma.decompress((folder / ROWS).read_bytes()).decode().removesuffix("\n").split("\n"):
        row = json.loads(line)
        found.append((row, PackedImage(archive=str(folder / IMAGES), offset=offset, size=row["bytes"])))
        offset += row["bytes"]
    return tuple(found)
