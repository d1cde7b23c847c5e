"""Images that are not loaded yet, read safely: files and members of an archive.

Files may be hostile. An image is refused by its header before any pixel is decoded when it is too large, a path may
not leave its root (by `..`, as an absolute path, or through a link), only common raster formats are tried, and
everything that a decoder can raise becomes a `ValueError` that names the image.
"""

import hashlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The decoders that are tried. EPS and its like, which start other programs, are not among them."""


def content_key(content: bytes) -> str:
    """Thirty-two hexadecimal digits that name these bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def decode(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The RGB image in these bytes: upright (EXIF orientation applied), transparency flattened onto white.

    Of an animation the first frame; CMYK and 16 bits become RGB of 8 bits.

    Raises:
        ValueError: no readable image, cut short, or more than `max_pixels` by its header (nothing is decoded then).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ValueError(f"Image {name} is too large to open safely: {error}") from error
        except Exception as error:
            why = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
            raise ValueError(
                f"Image {name} is not a readable {', '.join(FORMATS)} file ({len(content)} bytes){why}."
            ) from error
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(
                f"Image {name} has {width} x {height} pixels by its header, more than the {max_pixels} allowed. "
                f"Scale it down first, or raise `max_pixels` if you trust it."
            )
        try:
            return _upright_rgb(image)
        except Exception as error:
            raise ValueError(f"Image {name} is broken or cut short and cannot be decoded: {error}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(f"it holds {kind} values, whose range is not known. Save it with 8 or 16 bits.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        clear = values == image.info["transparency"] if "transparency" in image.info else np.zeros(1, dtype=bool)
        image = Image.fromarray(np.where(clear, 255, np.clip(values // 256, 0, 255)).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def inside(root: Path, path: str) -> Path:
    """The file at a relative path below `root`, links followed.

    Raises:
        ValueError: an absolute path, one that leaves `root`, no such file, or something that is not a plain file.
    """
    if not path or "\x00" in path or Path(path).is_absolute() or path.startswith("\\"):
        raise ValueError(f"An image path is relative to its root {str(root)!r}, got {path!r}.")
    try:
        base = root.resolve()
        found = (base / path).resolve()
        escapes = not found.is_relative_to(base)
        mode = 0 if escapes or not found.exists() else found.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise ValueError(f"Image path {path!r} below {str(root)!r} cannot be followed: {error}") from error
    if escapes:
        raise ValueError(f"Image path {path!r} leaves its root {str(root)!r}. Put the image below the root.")
    if not mode:
        raise ValueError(f"No image at {path!r} below {str(root)!r}.")
    if not stat.S_ISREG(mode):
        raise ValueError(f"Image path {path!r} below {str(root)!r} is not a plain file.")
    return found


@lru_cache(maxsize=65_536)
def _file_key(path: str, size: int, changed: int) -> str:
    """The key of a file's bytes; size and time of change tell one state of the file from the next."""
    return content_key(Path(path).read_bytes())


@dataclass(frozen=True, kw_only=True)
class FileImage:
    """An image file at `path` below `root`. Its key is the hash of its bytes."""

    root: str
    path: str
    max_pixels: int = MAX_PIXELS

    def _found(self) -> tuple[Path, os.stat_result]:
        found = inside(Path(self.root), self.path)
        state = found.stat()
        if state.st_size > MAX_BYTES:
            raise ValueError(f"Image {self.path!r} has {state.st_size} bytes, more than the {MAX_BYTES} allowed.")
        return found, state

    @property
    def key(self) -> str:
        """The hash of the file's bytes, read again only when the file's size or time changes."""
        found, state = self._found()
        return _file_key(str(found), state.st_size, state.st_mtime_ns)

    def load(self) -> Image.Image:
        """The RGB image. Raises ValueError naming the path."""
        found, _ = self._found()
        return decode(found.read_bytes(), repr(self.path), max_pixels=self.max_pixels)


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """The image whose `size` bytes start at `offset` of a file that holds many (a tar or zip, say): one read."""

    archive: str
    offset: int
    size: int

    def _content(self) -> bytes:
        return packed_content(self.archive, self.offset, self.size, self.name)

    @property
    def name(self) -> str:
        """The archive's file name and the offset."""
        return f"{Path(self.archive).name}@{self.offset}"

    @cached_property
    def key(self) -> str:
        """The hash of the image's bytes."""
        return content_key(self._content())

    def load(self) -> Image.Image:
        """The RGB image. Raises ValueError naming the archive and the offset."""
        return decode(self._content(), self.name)


def packed_content(archive: str, offset: int, size: int, name: str) -> bytes:
    """The `size` bytes from `offset` of an archive. Raises ValueError, with `name`, when they are not there."""
    if not 0 < size <= MAX_BYTES or offset < 0:
        raise ValueError(f"{name}: nothing has {size} bytes at offset {offset}.")
    try:
        with open(archive, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise ValueError(f"Cannot read {name}: {error}") from error
    if len(content) < size:
        raise ValueError(f"{name} is cut short: {size} bytes wanted, {len(content)} there.")
    return content
