"""The one form of a sample: turns of text with `<image>` marks, and the images that stand there."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from PIL import Image

IMAGE_MARK = "<image>"
"""Stands in a turn's text where an image's tokens go; each mark needs exactly one image."""


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


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message. `assistant` turns are supervised; a captioning sample may have no user text but the image mark."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Captions, chat, interleaved documents and text alone, all in one form.

    A caption is `user: "<image>"`, `assistant: caption`. An interleaved document is one `assistant` turn whose text
    holds marks. `meta` travels with the sample (family, answers, credit) and is never shown to the model.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = sum(turn.text.count(IMAGE_MARK) for turn in self.turns)
        if places != len(self.images):
            raise ValueError(
                f"The prompt has {places} image places but {len(self.images)} images came with it "
                f"(sample {self.id!r}). Each {IMAGE_MARK} needs exactly one image."
            )
