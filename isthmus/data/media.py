"""Opening files of video and sound with PyAV: only plain local containers, errors that name the file.

Files may be hostile: playlists and other demuxers that open further files or addresses are not among those allowed.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from isthmus.data.images import inside

MAX_BYTES = 20_000_000_000
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,wav,w64,flac,mp3,aac,aiff,au,flv,asf,gif,apng"
)
"""The containers that are tried."""

STILLS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
"""Brands of pictures in a video's container (HEIF, AVIF): read as videos they would show one tile of the picture."""


@contextmanager
def opened(root: str, path: str) -> Iterator[tuple[Any, str]]:
    """The open container of the file at `path` below `root`, and its name for messages.

    Raises:
        ValueError: no such file below the root, not a container that is allowed, or whatever goes wrong inside.
    """
    found = inside(Path(root), path)
    name = repr(path)
    size = found.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{name} has {size} bytes, more than the {MAX_BYTES} allowed.")
    with found.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in STILLS:
        raise ValueError(f"{name} is a HEIF or AVIF picture, which is not read here. Save it as JPEG or PNG.")
    with _container(str(found), name) as container:
        yield container, name


@contextmanager
def opened_bytes(content: bytes, name: str) -> Iterator[Any]:
    """The open container of a file's content, called `name` in messages. Raises ValueError as `opened` does."""
    with _container(io.BytesIO(content), name) as container:
        yield container


@contextmanager
def _container(file: str | io.BytesIO, name: str) -> Iterator[Any]:
    try:
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
        with av.open(file, options=options, metadata_errors="replace") as container:
            yield container
    except Exception as error:
        if isinstance(error, ValueError) and name in str(error):
            raise
        raise ValueError(f"{name} is broken or no video or sound file that can be read: {error}") from error


def checked_stream(streams: Sequence[Any], name: str, kind: str, way_out: str) -> Any:
    """The first of these streams. Raises ValueError when there is none, or it is coded in a way that is not known."""
    if not streams:
        raise ValueError(f"{name} holds no {kind}. {way_out}")
    if streams[0].codec_context is None:
        raise ValueError(f"{name} holds {kind} in a coding that is not known here, or its header is broken.")
    return streams[0]


def moving(streams: Sequence[Any]) -> list[Any]:
    """The video streams that are no cover picture, as sound files and some films have one."""
    return [one for one in streams if "attached_pic" not in str(getattr(one, "disposition", "")).lower()]


def file_key(root: str, path: str) -> str:
    """The hash of a file's bytes, read again only when its size or time changes. Raises ValueError without a file."""
    found = inside(Path(root), path)
    state = found.stat()
    return _key(str(found), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=65_536)
def _key(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
