"""The feature cache: what a frozen encoder says of an image is computed once, and kept on disk under its content.

One file an image view, named by the hash of (encoder fingerprint, image key, view, storage dtype). A file appears whole
or not at all (written aside, then renamed), so processes may write at the same time; the folder's size is bounded, the
least recently used files go first. What is read is bit-equal to what was returned when it was written.
"""

import contextlib
import hashlib
import os
import struct
import time
import uuid
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from isthmus.features import Features, Grid

Storage = Literal["float16", "float32"]

_HEADER = struct.Struct("<4sI11I")
_MAGIC = b"ISF1"
_MAX_LEVELS = 64
_TOUCH_AFTER_S = 3600.0
_LOOK_EVERY = 512


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the cache holds of one image view: its features (float32, one row a view) and the image's original size."""

    features: Features
    size: tuple[int, int]


def default_folder() -> Path:
    """The folder named by ISTHMUS_CACHE, else `~/.cache/isthmus/features`."""
    named = os.environ.get("ISTHMUS_CACHE", "")
    return Path(named) if named else Path.home() / ".cache" / "isthmus" / "features"


class FeatureCache:
    """Features on disk, under at most `max_gib` GiB. Safe for several processes on one folder."""

    def __init__(self, folder: Path, *, max_gib: float | int = 8.0, storage: Storage = "float16") -> None:
        if max_gib <= 0:
            raise ValueError(f"FeatureCache(max_gib={max_gib}) can hold nothing. Give a size above zero.")
        self.folder = Path(folder)
        self.max_bytes = int(max_gib * 2**30)
        self.storage: Storage = storage
        self._bytes = 0
        self._writes = 0
        self._broken = False
        self._started = time.time() - 0.1  # file times are coarser than the clock
        self._warned = False

    def path(self, encoder_fingerprint: str, image_key: str, view: int | str = 0) -> Path:
        """Where these features are or would be."""
        name = f"{encoder_fingerprint}|{image_key}|{view}|{self.storage}"
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def get(self, encoder_fingerprint: str, image_key: str, view: int | str = 0) -> Stored | None:
        """The stored features, or `None`. A file that is not whole counts as absent and is removed."""
        path = self.path(encoder_fingerprint, image_key, view)
        try:
            with open(path, "rb") as file:
                stat = os.fstat(file.fileno())
                data = bytearray(stat.st_size)
                file.readinto(data)
        except (FileNotFoundError, NotADirectoryError):
            return None
        stored = _decode(data)
        if stored is None:
            path.unlink(missing_ok=True)
        elif time.time() - stat.st_mtime > _TOUCH_AFTER_S:
            with contextlib.suppress(OSError):
                os.utime(path)
        return stored

    def put(
        self, encoder_fingerprint: str, image_key: str, features: Features, size: tuple[int, int], view: int | str = 0
    ) -> Stored:
        """Stores features and returns them as `get` will: rounded to the storage dtype, then float32.

        When the disk takes no more, a warning says so once and the features are returned all the same.

        Raises:
            ValueError: a value that the storage dtype cannot hold, or padded features.
        """
        data = _encode(features, size, self.storage)
        stored = _decode(data)
        assert stored is not None, "what was just encoded must decode"
        path = self.path(encoder_fingerprint, image_key, view)
        if not self._broken:
            try:
                self._write(path, data)
            except OSError as error:
                self._broken = True
                warnings.warn(
                    f"The feature cache at {self.folder} cannot be written ({error}): features are computed again "
                    f"when needed. Free space, or name another folder in ISTHMUS_CACHE.",
                    stacklevel=2,
                )
        return stored

    def size_bytes(self) -> int:
        """Bytes in the folder now, by looking."""
        return sum(size for _, size, _ in self._files())

    def _write(self, path: Path, data: bytearray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            aside.write_bytes(data)
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        looks_again = self._writes % _LOOK_EVERY == 0  # others write to this folder too
        self._bytes = self.size_bytes() if looks_again else self._bytes + len(data)
        self._writes += 1
        if self._bytes > self.max_bytes:
            self._evict()

    def _files(self) -> list[tuple[float, int, str]]:
        found = []
        for folder in [entry.path for entry in _scan(str(self.folder))]:
            for entry in _scan(folder):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append((stat.st_mtime, stat.st_size, entry.path))
        return found

    def _evict(self) -> None:
        """Removes the least recently used files until nine tenths of the bound are left."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        newest_gone = 0.0
        for used, size, path in files:
            if total <= self.max_bytes * 0.9:
                break
            Path(path).unlink(missing_ok=True)
            total, newest_gone = total - size, used
        self._bytes = total
        if newest_gone > self._started and not self._warned:
            self._warned = True
            warnings.warn(
                f"The feature cache at {self.folder} is full with what this run alone stored "
                f"({self.max_bytes / 2**30:.3g} GiB): images will be encoded again each epoch. Give it a "
                f"larger max_gib.",
                stacklevel=4,
            )


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _encode(features: Features, size: tuple[int, int], storage: Storage) -> bytearray:
    """Header (checksum, grid, prefix, size, dtype, shapes), level widths, then tokens and levels row after row."""
    if features.valid is not None:
        raise ValueError("Padded features (with a `valid` mask) cannot be kept: encode inputs of one length at a time.")
    if len(features.levels) > _MAX_LEVELS:
        raise ValueError(f"At most {_MAX_LEVELS} levels can be kept, but {len(features.levels)} came.")
    dtype = torch.float16 if storage == "float16" else torch.float32
    parts = [part.detach().to("cpu", torch.float32) for part in (features.tokens, *features.levels)]
    kept = [part.to(dtype) for part in parts]
    for part, narrow in zip(parts, kept, strict=True):
        if not bool(torch.isfinite(narrow).all()):
            largest = float(part.abs().max())
            raise ValueError(
                f"The features reach {largest:.3g}, which {storage} cannot hold. "
                + ("Store them as float32." if np.isfinite(largest) else "The encoder answers with NaN or infinity.")
            )
    body = b"".join(part.contiguous().numpy().tobytes() for part in kept)
    widths = np.array([level.shape[2] for level in features.levels], dtype="<u4").tobytes()
    views, tokens, channels = features.tokens.shape
    code = 0 if storage == "float16" else 1
    body = widths + body
    numbers = (*features.grid, features.prefix, *size, views, tokens, channels, code, len(features.levels))
    return bytearray(_HEADER.pack(_MAGIC, zlib.crc32(body, zlib.crc32(repr(numbers).encode())), *numbers) + body)


def _decode(data: bytearray) -> Stored | None:
    """The content of a file, or `None` when it is not whole."""
    if len(data) < _HEADER.size:
        return None
    magic, checksum, *numbers = _HEADER.unpack_from(data)
    frames, rows, columns, prefix, wide, high, views, tokens, channels, code, levels = numbers
    body = memoryview(data)[_HEADER.size :]
    if magic != _MAGIC or checksum != zlib.crc32(body, zlib.crc32(repr(tuple(numbers)).encode())):
        return None
    grid = Grid(frames, rows, columns)
    widths = np.frombuffer(body, dtype="<u4", count=levels).tolist()
    dtype = torch.float16 if code == 0 else torch.float32
    shapes = [(views, tokens, channels), *((views, grid.size, width) for width in widths)]
    offset, parts = _HEADER.size + 4 * levels, []
    for shape in shapes:
        count = shape[0] * shape[1] * shape[2]
        part: Tensor = torch.frombuffer(data, dtype=dtype, count=count, offset=offset)
        parts.append(part.view(shape).to(torch.float32))
        offset += count * dtype.itemsize
    features = Features(tokens=parts[0], grid=grid, prefix=prefix, levels=tuple(parts[1:]))
    return Stored(features=features, size=(wide, high))
