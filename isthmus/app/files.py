"""Files by path: pictures, videos and sounds told apart by what is in them, each read as a model takes it."""

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from isthmus.data.frames import FrameSampling, UniformFrames, read_frames
from isthmus.data.images import FORMATS, FileImage
from isthmus.data.interleave import videos_as_mosaics
from isthmus.data.media import moving, opened
from isthmus.data.sample import MARKS, Input, Sample, marks_of
from isthmus.data.sound import FileSound
from isthmus.data.sources import LlavaFile
from isthmus.data.video import FileVideo, FrameMosaic
from isthmus.encoders import AudioEncoder, VideoEncoder
from isthmus.features import BranchName
from isthmus.model import Model

SAID: dict[BranchName, str] = {"image": "a picture", "video": "a video", "audio": "a sound"}
MOST_FRAMES = 32
"""Of a choice of frames that names no bound, where the encoder has none either."""
MOST_EXAMPLES = 64
"""Conversations that stand before a question."""
MARK_OF: dict[BranchName, str] = {kind: mark for mark, kind in MARKS.items()}


@dataclass(frozen=True, kw_only=True)
class Videos:
    """How videos are shown to a model."""

    frames: str = ""
    """Which frames, see `frames_of`."""
    mosaic: int = 0
    """Above 0: the frames are put into one picture, so many side by side, for tiles to cut apart."""

    def __post_init__(self) -> None:
        if self.mosaic < 0:
            raise ValueError(f"mosaic={self.mosaic} frames side by side: give 1 or more, or 0 for no mosaic.")

    def shown_as(self, kind: BranchName) -> BranchName:
        """What a file of this kind becomes."""
        return "image" if kind == "video" and self.mosaic else kind


SINGLY = Videos()
"""Frame by frame, as many as the model takes."""


def kind_of(path: Path) -> BranchName:
    """What a file holds. What has the header of a picture is one; a sound's cover picture makes it no video.

    Raises:
        ValueError: no such file, or neither a picture nor a video nor a sound.
    """
    checked(path)
    with contextlib.suppress(OSError, ValueError, SyntaxError), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS):  # Pillow takes the first frame of an MPEG stream for a picture
                return "image"
        except Image.DecompressionBombError:
            return "image"  # too large a one, as reading it says
    try:
        with opened(str(path.parent), path.name) as (container, _):
            shows = moving(container.streams.video)
            found: BranchName | None = "video" if shows else "audio" if container.streams.audio else None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no picture, video or sound that can be read: {error}") from error
    if found is None:
        raise ValueError(f"{str(path)!r} holds neither picture nor sound.")
    return found


def frames_of(videos: Videos, model: Model) -> FrameSampling:
    """The frames of a video that `videos` names (as `read_frames`); where it names none: as many as the model's encoder
    of clips takes, 8 where it takes any number and for a mosaic.

    Raises:
        ValueError: no such choice, or one of more frames than the encoder takes.
    """
    sees = model.encoder if model.video is None else model.video.encoder
    if videos.mosaic or not isinstance(sees, VideoEncoder):
        return read_frames(videos.frames, most=MOST_FRAMES) if videos.frames else UniformFrames()
    chosen = read_frames(videos.frames or "uniform", most=sees.max_frames)
    if chosen.most > sees.max_frames:
        raise ValueError(
            f"The frames {videos.frames!r} may be {chosen.most}, and this model's encoder takes clips of "
            f"{sees.max_frames} at most. Choose uniform:{sees.max_frames}."
        )
    return chosen


def file_input(path: Path, kind: BranchName, model: Model, videos: Videos = SINGLY) -> Input:
    """The file as an input of this kind, sounds at the rate that the model hears; readable, and seen by some branch.

    Raises:
        ValueError: no such file, one that cannot be read as that kind, a sound for a model that hears nothing, or
            frames that are no choice.
    """
    checked(path)
    root, name = str(path.parent), path.name
    if kind == "image":
        image = FileImage(root=root, path=name)
        image.load()
        return Input(kind, image)
    if kind == "video":
        video = FileVideo(root=root, path=name, frames=frames_of(videos, model))
        if videos.mosaic:
            mosaic = FrameMosaic(video=video, columns=videos.mosaic)
            mosaic.load()
            return Input("image", mosaic)
        video.frame(0)
        return Input(kind, video)
    if model.audio is None:
        raise ValueError(
            f"{name!r} is given as a sound, and this model has no audio branch, so it hears nothing. One that does is "
            f"trained by: isthmus train sounds."
        )
    sound = FileSound(root=root, path=name, rate=_rate(model))
    sound.load()
    return Input(kind, sound)


def read_examples(path: Path, model: Model, videos: Videos = SINGLY) -> list[Sample]:
    """The conversations of a LLaVA-style file, to stand before a question.

    Raises:
        ValueError: no such file, one of another form, or more than 64 conversations.
    """
    checked(path)
    frames = frames_of(videos, model)
    file = LlavaFile(path=str(path), root=str(path.parent), frames=frames, audio_rate=_rate(model)).build()
    if len(file) > MOST_EXAMPLES:
        raise ValueError(
            f"{path} holds {len(file)} conversations, more than the {MOST_EXAMPLES} that stand as examples."
        )
    samples = [file[index] for index in range(len(file))]
    return [videos_as_mosaics(sample, videos.mosaic) for sample in samples] if videos.mosaic else samples


def with_marks(words: str, kinds: Sequence[BranchName]) -> str:
    """The words with a mark for each input: where the words have them, else in front.

    Raises:
        ValueError: marks that are not those of the inputs, in order.
    """
    wanted = [MARK_OF[kind] for kind in kinds]
    found = marks_of(words)
    if not found:
        return "".join(f"{mark}\n" for mark in wanted) + words
    if found != wanted:
        raise ValueError(
            f"The question holds {' '.join(found)}, and {_told(wanted)}. Write one mark for each file, in their order, "
            f"or none: they then go in front."
        )
    return words


def _told(marks: Sequence[str]) -> str:
    return f"the files are {' '.join(marks)}" if marks else "no file came with it"


def _rate(model: Model) -> int:
    """Samples a second that the model hears; where it hears nothing, as most encoders of sound do."""
    hears = None if model.audio is None else model.audio.encoder
    return hears.rate if isinstance(hears, AudioEncoder) else 16_000


def checked(path: Path) -> None:
    """Raises ValueError when there is no such file."""
    if not path.is_file():
        raise ValueError(f"No file {str(path)!r}. Give the path of a picture, a video or a sound.")
