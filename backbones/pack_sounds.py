"""Pack the spoken digits that the package brings: `python -m backbones.pack_sounds --data DATA --into isthmus/bundled`.

Samples stay as they are; FLAC holds them without loss. Train and val are takes of the speakers that the bundled ear
was trained on, test is all of the speakers that it never heard.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import av

from backbones.ear_sounds import HELD_OUT
from backbones.pack_real import read_lines
from isthmus.data.sources.packed import Row

EXAMPLE_TAKE = 7
"""The take of a test speaker that lies beside the archive as files, one for each digit."""


class Pack:
    """An archive of stored (uncompressed) members whose places are known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._names: list[str] = []

    def add(self, name: str, content: bytes) -> None:
        """Append one member, dated 1980 so that two packings are equal."""
        self._zip.writestr(zipfile.ZipInfo(name), content)
        self._names.append(name)

    def close(self) -> dict[str, tuple[int, int]]:
        """Offset and size of the bytes of every member."""
        self._zip.close()
        places = {}
        with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as raw:
            for info in archive.infolist():
                raw.seek(info.header_offset + 26)
                lengths = int.from_bytes(raw.read(2), "little") + int.from_bytes(raw.read(2), "little")
                places[info.filename] = (info.header_offset + 30 + lengths, info.file_size)
        return places


def write_lines(path: Path, rows: list[Row]) -> None:
    """One compact object a line."""
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def flac(path: Path) -> bytes:
    """A sound file's samples as FLAC of the same rate."""
    out = io.BytesIO()
    with (
        av.open(str(path)) as source,
        av.open(out, "w", format="flac", options={"metadata_header_padding": "0"}) as target,
    ):
        heard = source.streams.audio[0]
        stream = target.add_stream("flac", rate=heard.rate)
        stream.layout = "mono"
        stream.format = "s16"
        stream.options = {"compression_level": "12"}
        for frame in source.decode(heard):
            for packet in stream.encode(frame):
                target.mux(packet)
        for packet in stream.encode(None):
            target.mux(packet)
    return out.getvalue()


def split_of(row: Row) -> str:
    """By speaker, then by take; "" where a recording is left out to keep the package small."""
    if row["speaker"] in HELD_OUT:
        return "test"
    return "val" if row["take"] == 4 else "train" if 5 <= row["take"] < 10 else ""


def pack_digits(source: Path, folder: Path) -> None:
    """The archive, a file of lines for each split, and ten sounds as files."""
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    found = [row for name in ("train", "val") for row in read_lines(source / f"{name}.jsonl")]
    rows = [row for row in found if split_of(row)]
    rows.sort(key=lambda row: (row["speaker"], row["digit"], row["take"]))
    pack = Pack(folder / "sounds.zip")
    for row in rows:
        content = flac(source / row["audio"])
        pack.add(f"{row['id']}.flac", content)
        if row["speaker"] == HELD_OUT[0] and row["take"] == EXAMPLE_TAKE:
            (folder / "examples" / f"{row['text']}.flac").write_bytes(content)
    places = pack.close()
    for split in ("train", "val", "test"):
        write_lines(
            folder / f"{split}.jsonl",
            [line(row, *places[f"{row['id']}.flac"]) for row in rows if split_of(row) == split],
        )


def line(row: Row, offset: int, size: int) -> Row:
    """What the library needs of one recording."""
    kept = {name: row[name] for name in ("id", "text", "speaker", "take")}
    return {**kept, "offset": offset, "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds audio_digits")
    parser.add_argument("--into", type=Path, required=True, help="the folder that gets digits/")
    args = parser.parse_args()
    pack_digits(args.data / "audio_digits", args.into / "digits")
    size = sum(path.stat().st_size for path in (args.into / "digits").rglob("*") if path.is_file())
    print(f"digits: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
