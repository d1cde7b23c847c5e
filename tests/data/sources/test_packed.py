"""Bundled pictures and their rows: what is written is read, in order, and equal input gives equal files."""

import io
from pathlib import Path

from PIL import Image

from isthmus.data.sources.packed import IMAGES, ROWS, read_packed, write_packed


def picture(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4 + level, 3), (level, 0, 255)).save(out, "PNG")
    return out.getvalue()


def test_rows_and_pictures_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [({"id": f"ü\u2028{level}", "split": "val"}, picture(level)) for level in (1, 9, 4)]
    write_packed(tmp_path / "a", rows)
    write_packed(tmp_path / "b", rows)
    for name in (ROWS, IMAGES):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    read = read_packed(tmp_path / "a")
    assert [row for row, _ in read] == [{**row, "bytes": len(content)} for row, content in rows]
    assert [image.load().getpixel((0, 0)) for _, image in read] == [(1, 0, 255), (9, 0, 255), (4, 0, 255)]
    assert [image.load().width for _, image in read] == [5, 13, 8]
