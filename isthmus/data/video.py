"""Videos that are not loaded yet: files, of which only the chosen frames are ever held.

The times of all frames are read from the packets, without decoding one, so that a variable frame rate and a wrong
length in the header do no harm; then the reader seeks to the keyframe before each chosen frame and decodes from there.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from PIL import Image

from isthmus.data.frames import FrameSampling, UniformFrames
from isthmus.data.images import MAX_PIXELS
from isthmus.data.media import checked_stream, file_key, moving, opened
from isthmus.features import Clip

MAX_FRAMES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class FileVideo:
    """The video at `path` below `root`, from `start_s` to `end_s`, seen at the frames that `frames` chooses."""

    root: str
    path: str
    frames: FrameSampling = field(default_factory=UniformFrames)
    start_s: float = 0.0
    end_s: float = float("inf")
    max_side: int = 640
    """Frames are scaled down while they are decoded, to at most so many pixels on their longer side."""

    @property
    def key(self) -> str:
        """The hash of the file's bytes, with the choice of frames."""
        return f"{file_key(self.root, self.path)}|{self.frames}|{self.start_s}-{self.end_s}|{self.max_side}"

    def load(self) -> Clip:
        """The chosen frames.

        Raises:
            ValueError: naming the file: it is broken, has no picture, or shows nothing between start and end.
        """
        return self._read(None)

    def num_frames(self) -> int:
        """How many frames are chosen, without decoding one; where their number is fixed, without opening the file.

        Raises:
            ValueError: naming the file, as `load` does.
        """
        if isinstance(self.frames, UniformFrames):
            return self.frames.num
        with opened(self.root, self.path) as (container, name):
            index = _Index(container, _stream(container, name), name, self.start_s, self.end_s)
            return len(self.frames.choose(index.times, index.keys))

    def moments(self) -> list[float]:
        """When each frame from `start_s` to `end_s` is shown, in seconds, without decoding one.

        Raises:
            ValueError: naming the file, as `load` does.
        """
        with opened(self.root, self.path) as (container, name):
            return _Index(container, _stream(container, name), name, self.start_s, self.end_s).times

    def frame(self, number: int) -> Image.Image:
        """One of the chosen frames alone. Raises ValueError as `load`, and when there are not so many."""
        return self._read(number).frames[0]

    def _read(self, only: int | None) -> Clip:
        with opened(self.root, self.path) as (container, name):
            stream = _stream(container, name)
            index = _Index(container, stream, name, self.start_s, self.end_s)
            chosen = self.frames.choose(index.times, index.keys)
            if only is not None:
                if not 0 <= only < len(chosen):
                    raise ValueError(f"Video {name} gives {len(chosen)} frames, so there is none of number {only}.")
                chosen = [chosen[only]]
            wanted = [index.stamps[number] for number in sorted(set(chosen))]
            shown = dict(zip(wanted, _decoded(container, stream, wanted, index, name, self.max_side), strict=True))
            frames = tuple(shown[index.stamps[number]] for number in chosen)
            return Clip(frames=frames, times_s=tuple(index.times[number] for number in chosen))


@dataclass(frozen=True, kw_only=True)
class VideoFrame:
    """One of the frames that a video's choice gives, as an image of its own."""

    video: FileVideo
    number: int

    @property
    def key(self) -> str:
        """The video's key and the number."""
        return f"{self.video.key}#{self.number}"

    def load(self) -> Image.Image:
        """The RGB image. Raises ValueError naming the file."""
        return self.video.frame(self.number)


@dataclass(frozen=True, kw_only=True)
class FrameMosaic:
    """All frames of a video as one image, row by row: tiles of `columns` by as many rows cut it into its frames.

    Source: DeepStack (arXiv:2406.04334), section 4.3, six frames as 2 x 3, with
    `AnyresTiles(grids=((3, 2),), pad=False)`.
    """

    video: FileVideo
    columns: int

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise ValueError(f"FrameMosaic(columns={self.columns}) must be 1 or more.")

    @property
    def key(self) -> str:
        """The video's key and the number of columns."""
        return f"{self.video.key}|mosaic {self.columns}"

    def load(self) -> Image.Image:
        """The RGB image; places without a frame are black. Raises ValueError naming the file."""
        return mosaic(self.video.load().frames, self.columns)


def mosaic(frames: Sequence[Image.Image], columns: int) -> Image.Image:
    """Frames of one size side by side, row by row; the last row is filled up with black."""
    wide, high = frames[0].size
    canvas = Image.new("RGB", (wide * columns, high * -(-len(frames) // columns)))
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        canvas.paste(frame, (column * wide, row * high))
    return canvas


class _Index:
    """Time stamps of the frames between two moments (`start_s` at 0 is the first frame), and which are keyframes."""

    def __init__(self, container: Any, stream: Any, name: str, start_s: float, end_s: float) -> None:
        found: list[tuple[int, bool]] = []
        self.decoded_at: dict[int, int] = {}  # of a keyframe's stamp
        for packet in container.demux(stream):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.size:
                continue
            found.append((stamp, packet.is_keyframe))
            if packet.is_keyframe:
                self.decoded_at[stamp] = stamp if packet.dts is None else packet.dts
            if len(found) > MAX_FRAMES:
                raise ValueError(f"Video {name} has more than {MAX_FRAMES} frames. Cut it into parts.")
        if not found:
            raise ValueError(f"Video {name} has no frames.")
        found = sorted(dict(sorted(found)).items())
        base, first = float(stream.time_base), found[0][0]
        self.first = first
        self.anchors = [stamp for stamp, key in found if key]
        kept = [(stamp, key) for stamp, key in found if start_s <= (stamp - first) * base <= end_s]
        if not kept:
            length = (found[-1][0] - first) * base
            raise ValueError(f"Video {name} lasts {length:.2f} s and shows nothing from {start_s} to {end_s} s.")
        self.stamps = [stamp for stamp, _ in kept]
        self.times = [(stamp - first) * base for stamp in self.stamps]
        self.keys = [number for number, (_, key) in enumerate(kept) if key]


def _stream(container: Any, name: str) -> Any:
    stream = checked_stream(moving(container.streams.video), name, "video", "A sound file is read with FileSound.")
    wide, high = stream.codec_context.width, stream.codec_context.height
    if not 0 < wide * high <= MAX_PIXELS:
        raise ValueError(f"Video {name} has frames of {wide} x {high} pixels by its header, which is not allowed.")
    stream.thread_type = "NONE"
    return stream


def _decoded(
    container: Any, stream: Any, wanted: Sequence[int], index: _Index, name: str, max_side: int
) -> Iterator[Image.Image]:
    """The frames with these time stamps (in order): one seek for each stretch between keyframes that is needed."""
    at: int | None = None
    decoding: Iterator[Any] = iter(())
    frame: Any = None
    for stamp in wanted:
        place = bisect_right(index.anchors, stamp) - 1
        anchor = index.anchors[place] if place >= 0 else index.first
        if at is None or anchor > at:
            decoding, frame = _from(container, stream, anchor, index, name), None
        while frame is None or frame.pts is None or frame.pts < stamp:
            following = next(decoding, None)
            if following is None:
                break
            frame = following
        assert frame is not None
        at = stamp if frame.pts is None else frame.pts
        yield _upright(frame, max_side, _pixel_shape(stream))


def _from(container: Any, stream: Any, anchor: int, index: _Index, name: str) -> Iterator[Any]:
    """Frames from a keyframe's, or from one before it.

    Most containers are sought by when a frame is shown; MPEG streams, and AVI, by when it is decoded, and by the other
    they come too late. Frames before a file's first keyframe cannot be decoded: then what can be comes first.
    """
    start = min(index.first, *index.decoded_at.values(), anchor)
    for moment in (anchor, index.decoded_at.get(anchor, anchor), start):
        container.seek(moment, stream=stream, backward=True, any_frame=False)
        decoding: Iterator[Any] = container.decode(stream)
        first = next(decoding, None)
        if first is not None and (first.pts is None or first.pts <= max((anchor, *index.anchors[:1]))):
            return chain((first,), decoding)
    raise ValueError(
        f"Video {name} has no frame that can be decoded at {anchor * float(stream.time_base):.2f} s, or none that can "
        f"be sought. Write it anew as MP4 or Matroska."
    )


def _pixel_shape(stream: Any) -> float:
    """How many times wider than high a stored pixel is shown (DVDs and tapes have pixels that are not square)."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 0.1 <= ratio <= 10.0 else 1.0


def _upright(frame: Any, max_side: int, pixel_shape: float) -> Image.Image:
    """The frame as an RGB image, scaled down, shaped and turned as the file says (phones store video on its side)."""
    shown = frame.width * pixel_shape
    scale = min(1.0, max_side / max(shown, frame.height))
    wide, high = max(1, round(shown * scale)), max(1, round(frame.height * scale))
    image: Image.Image = frame.to_image(width=wide, height=high)
    turned = round(float(frame.rotation)) % 360
    return image if not turned else image.rotate(turned, expand=True)
