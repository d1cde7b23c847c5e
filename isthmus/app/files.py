"""Files by path: pictures, videos and sounds told apart by what is in them, each read as a model takes it."""

from pathlib import Path

from PIL import Image

from isthmus.data.images import FileImage
from isthmus.data.media import opened
from isthmus.data.sample import Input
from isthmus.data.sound import FileSound
from isthmus.data.video import FileVideo
from isthmus.encoders import AudioEncoder
from isthmus.features import BranchName
from isthmus.model import Model

SAID: dict[BranchName, str] = {"image": "a picture", "video": "a video", "audio": "a sound"}


def kind_of(path: Path) -> BranchName:
    """What a file holds. Whatever Pillow can open is a picture; a sound's cover picture makes it no video.

    Raises:
        ValueError: no such file, or neither a picture nor a video nor a sound.
    """
    checked(path)
    try:
        with Image.open(path):
            return "image"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    try:
        with opened(str(path.parent), path.name) as (container, _):
            pictures = [one for one in container.streams.video if not _is_cover(one)]
            found: BranchName | None = "video" if pictures else "audio" if container.streams.audio else None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no picture, video or sound that can be read: {error}") from error
    if found is None:
        raise ValueError(f"{str(path)!r} holds neither picture nor sound.")
    return found


def file_input(path: Path, kind: BranchName, model: Model) -> Input:
    """The file as an input of this kind, sounds at the rate that the model hears; readable, and seen by some branch.

    Raises:
        ValueError: no such file, one that cannot be read as that kind, or a sound for a model that hears nothing.
    """
    checked(path)
    root, name = str(path.parent), path.name
    if kind == "image":
        image = FileImage(root=root, path=name)
        image.load()
        return Input(kind, image)
    if kind == "video":
        video = FileVideo(root=root, path=name)
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


def _is_cover(stream: object) -> bool:
    return "attached_pic" in str(getattr(stream, "disposition", "")).lower()
