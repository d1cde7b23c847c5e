"""Small video and sound files made with PyAV for tests: every frame of one grey level, its number in it."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def write_video(
    path: Path,
    levels: Sequence[int],
    *,
    stamps: Sequence[int] | None = None,
    every_key: int = 4,
    size: tuple[int, int] = (32, 16),
    corner: bool = False,
    pixel: int = 1,
    form: str = "mp4",
    codec: str = "mpeg4",
    rate: int = 10,
    between: int = 0,
) -> None:
    """An MPEG-4 file; frame i has grey level `levels[i]` and is shown at `stamps[i]` tenths of a second.

    With `corner` the top left quarter is white. A stored pixel is shown `pixel` times wider than high. In other
    containers (`form`) and codings there may be up to `between` frames made of both neighbours, which are stored late.
    """
    wide, high = size
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.gop_size = every_key
        stream.codec_context.max_b_frames = between
        stream.codec_context.sample_aspect_ratio = Fraction(pixel)
        stream.bit_rate = 8_000_000
        stream.options = {"qmin": "1", "qmax": "1", "sc_threshold": "1000000000"}
        for number, level in enumerate(levels):
            values = np.full((high, wide, 3), level, dtype=np.uint8)
            if corner:
                values[: high // 2, : wide // 2] = 255
            frame = av.VideoFrame.from_ndarray(values, format="rgb24")
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def turn_portrait(path: Path, degrees: int = 90) -> None:
    """Write into the file what a phone held upright writes: to be shown turned by so many degrees clockwise."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 36
    one = 1 << 16
    across, down, back, up = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    content[place : place + 36] = struct.pack(">9i", across, down, 0, back, up, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def write_sound(
    path: Path, samples: np.ndarray, rate: int, *, channels: int = 1, form: str = "wav", codec: str = "pcm_s16le"
) -> None:
    """A WAV file, or another, of these samples (-1 to 1), the same in every channel."""
    with av.open(str(path), "w", format=form) as container:
        layout = "mono" if channels == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        whole = np.round(samples * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(whole, channels)[None], format="s16", layout=layout)
        frame.rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    """A sine of half the full loudness."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def level(image: Image.Image) -> int:
    """The grey level in the middle of a frame."""
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return int(pixel[0])
