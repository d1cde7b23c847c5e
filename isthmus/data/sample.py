"""The one form of a sample: turns of text with marks, and the images, videos and sounds that stand there."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from isthmus.features import BranchName, Clip, Sound

IMAGE_MARK = "<image>"
"""Stands in a turn's text where an image's tokens go; each mark needs exactly one image."""
VIDEO_MARK = "<video>"
"""The same for a video, whose frames are seen as one clip."""
AUDIO_MARK = "<audio>"
"""The same for a sound."""

MARKS: dict[str, BranchName] = {IMAGE_MARK: "image", VIDEO_MARK: "video", AUDIO_MARK: "audio"}
"""Every mark, and what stands there."""
ANY_MARK = re.compile("|".join(map(re.escape, MARKS)))
"""Finds the marks of a text in order."""


@runtime_checkable
class ImageRef(Protocol):
    """An image that is not loaded yet: a file, a member of an archive, a scene to render.

    `key` is a content address: equal keys mean equal pixels, in any process and on any day.
    """

    if TYPE_CHECKING:  # a check at run time would ask for the key, which may read the file

        @property
        def key(self) -> str: ...

    def load(self) -> Image.Image:
        """The RGB image. Raises ValueError (naming the image) when it cannot be read safely."""
        ...


@runtime_checkable
class VideoRef(Protocol):
    """A video that is not loaded yet, with the choice of its frames; `key` is a content address of these frames."""

    if TYPE_CHECKING:

        @property
        def key(self) -> str: ...

    def load(self) -> Clip:
        """The chosen frames. Raises ValueError (naming the video) when it cannot be read safely."""
        ...


@runtime_checkable
class SoundRef(Protocol):
    """A sound that is not loaded yet; `key` is a content address of its samples."""

    if TYPE_CHECKING:

        @property
        def key(self) -> str: ...

    def load(self) -> Sound:
        """The samples. Raises ValueError (naming the sound) when it cannot be read safely."""
        ...


class Input(NamedTuple):
    """What stands at one mark: its kind, and where it is read."""

    kind: BranchName
    ref: ImageRef | VideoRef | SoundRef


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message. `assistant` turns are supervised; a captioning sample may have no user text but the image mark."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Captions, chat, interleaved documents and text alone, all in one form.

    A caption is `user: "<image>"`, `assistant: caption`. An interleaved document is one `assistant` turn whose text
    holds marks. Images, videos and sounds may stand in any turn, in any order and number: `images` are those of the
    `<image>` marks in their order, `videos` of the `<video>` marks, `sounds` of the `<audio>` marks. Several views of
    a 3-D scene are several images. `meta` travels with the sample (family, answers, credit) and is never shown to the
    model.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()
    sounds: tuple[SoundRef, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [MARKS[mark] for turn in self.turns for mark in marks_of(turn.text)]
        for mark, kind, refs in zip(MARKS, MARKS.values(), (self.images, self.videos, self.sounds), strict=True):
            if kinds.count(kind) != len(refs):
                name = {"image": "image", "video": "video", "audio": "sound"}[kind]
                raise ValueError(
                    f"The prompt has {kinds.count(kind)} {name} places but {len(refs)} {name}s came with it "
                    f"(sample {self.id!r}). Each {mark} needs exactly one {name}."
                )

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Images, videos and sounds in the order of their marks."""
        refs: dict[BranchName, Iterator[Any]] = {
            "image": iter(self.images),
            "video": iter(self.videos),
            "audio": iter(self.sounds),
        }
        kinds = [MARKS[mark] for turn in self.turns for mark in marks_of(turn.text)]
        return tuple(Input(kind, next(refs[kind])) for kind in kinds)


def marks_of(text: str) -> list[str]:
    """The marks of a text, in order."""
    return ANY_MARK.findall(text)


def with_turns(sample: Sample, turns: tuple[Turn, ...], inputs: Sequence[Input]) -> Sample:
    """The sample with other turns, and exactly the inputs that their marks stand for, in order."""
    refs: dict[BranchName, list[Any]] = {"image": [], "video": [], "audio": []}
    for kind, ref in inputs:
        refs[kind].append(ref)
    return replace(
        sample,
        turns=turns,
        images=tuple(refs["image"]),
        videos=tuple(refs["video"]),
        sounds=tuple(refs["audio"]),
    )
