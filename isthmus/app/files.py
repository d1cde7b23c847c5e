"""Files by path: pictures, videos and sounds told apart by what is in them, each read as a model takes it."""

import contextlib
import warnings
from pathlib import Path

from PIL import Image

from isthmus.data.frames import FrameSampling, UniformFrames, read_frames
from isthmus.data.images import FORMATS, FileImage
from isthmus.data.media import moving, opened
from isthmus.data.sample import Input
from isthmus.data.sound import FileSound
from isthmus.data.video import FileVideo
from isthmus.encoders import AudioEncoder, VideoEncoder
from isthmus.features import BranchName
from isthmus.model import Model

SAID: dict[BranchName, str] = {"image": "a picture", "video": "a video", "audio": "a sound"}
MOST_FRAMES = 32
"""Of a choice of frames that names no bound, where the encoder has none either."""


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


def frames_of(choice: str, model: Model) -> FrameSampling:
    """The frames of a video that `choice` names (as `read_frames`); empty: as many as the model's encoder of clips
    takes, 8 where it takes any number.

    Raises:
        ValueError: no such choice, or one of more frames than the encoder takes.
    """
    sees = model.encoder if model.video is None else model.video.encoder
    if not isinstance(sees, VideoEncoder):
        return read_frames(choice, most=MOST_FRAMES) if choice else UniformFrames()
    chosen = read_frames(choice or "uniform", most=sees.max_frames)
    if chosen.most > sees.max_frames:
        raise ValueError(
            f"The frames {choice!r} may be {chosen.most}, and this model's encoder takes clips of {sees.max_frames} at "
            f"most. Choose uniform:{sees.max_frames}."
        )
    return chosen


def file_input(path: Path, kind: BranchName, model: Model, frames: str = "") -> Input:
    """The file as an input of this kind, sounds at the rate that the model hears; readable, and seen by some branch.

    `frames` chooses those of a video, see `frames_of`.

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
        video = FileVideo(root=root, path=name, frames=frames_of(frames, model))
        video.frame(0)
        return Input(kind, video)
    if model.audio is None:
        raise ValueError(
            f"{name!r} is a sound, and this model has no audio branch, so it hears nothing. One that does is trained "
            f"by: isthmus train sounds."
        )
    hears = model.audio.encoder
    sound = FileSound(root=root, path=name, rate=hears.rate if isinstance(hears, AudioEncoder) else 16_000)
    sound.load()
    return Input(kind, sound)


def checked(path: Path) -> None:
    """Raises ValueError when there is no such file."""
    if not path.is_file():
        raise ValueError(f"No file {str(path)!r}. Give the path of a picture, a video or a sound.")
