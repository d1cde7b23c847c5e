"""Interleaved documents in JSON lines: texts and images in the order in which they stand on a page.

A line is `{"texts": ["Two cats.", null, "They sleep."], "images": [null, "cats/1.jpg", null]}`: lists of one length, at
each place either a text or an image path, as OBELICS (arXiv:2306.16527) has them; or, the same written shorter,
`{"text": "Two cats. <image> They sleep.", "images": ["cats/1.jpg"]}`. An `"id"` is optional in both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.images import FileImage
from isthmus.data.sample import IMAGE_MARK, Sample, Turn, marks_of
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.json_lines import LineSamples, encodable, text_of


@dataclass(frozen=True, kw_only=True)
class DocumentFile(SourceConfig):
    """Pages of text with images in their places, all of whose text is learnt. Paths are relative to `root`."""

    path: str
    root: str
    max_images: int = 16
    """A document with more images than this is refused."""

    def build(self) -> Dataset:
        """The documents. Raises ValueError when the file is missing."""
        return LineSamples(Path(self.path), self._sample)

    def _sample(self, row: dict[str, Any], where: str) -> Sample:
        text, paths = _page(row, where) if "texts" in row else (text_of(row, "text", where), _images(row, where))
        marks = marks_of(text)
        if marks != [IMAGE_MARK] * len(paths):
            raise ValueError(
                f"{where} has the marks {marks[:8]} and {len(paths)} images. Write one {IMAGE_MARK} for each image, "
                f"where it stands, and no other mark."
            )
        if len(paths) > self.max_images:
            raise ValueError(f"{where} has {len(paths)} images, more than max_images={self.max_images}.")
        if not text.replace(IMAGE_MARK, "").strip():
            raise ValueError(f"{where} has no text to learn.")
        return Sample(
            id=str(row.get("id", where)),
            turns=(Turn(role="assistant", text=text),),
            images=tuple(FileImage(root=self.root, path=path) for path in paths),
        )


def _page(row: dict[str, Any], where: str) -> tuple[str, list[str]]:
    """The text with marks, and the images' paths, of two lists that stand beside each other."""
    texts, images = row["texts"], _images(row, where, gaps=True)
    if not isinstance(texts, list) or len(texts) != len(images):
        raise ValueError(f"{where}: `texts` and `images` are lists of one length, null where the other stands.")
    parts: list[str] = []
    for place, (text, image) in enumerate(zip(texts, images, strict=True)):
        if isinstance(text, str) == (image is not None) or (text is not None and not isinstance(text, str)):
            raise ValueError(f"{where}, place {place}: either a text or an image, got {text!r:.40} and {image!r:.40}.")
        if text is not None and marks_of(text):
            raise ValueError(f"{where}, place {place}: a text in `texts` holds no mark, got {text!r:.40}.")
        parts.append(IMAGE_MARK if text is None else encodable(text, where))
    return " ".join(parts), [image for image in images if image is not None]


def _images(row: dict[str, Any], where: str, *, gaps: bool = False) -> list[Any]:
    found = row.get("images")
    if not isinstance(found, list) or not all(isinstance(one, str) or (gaps and one is None) for one in found):
        raise ValueError(f"{where} needs a list `images` of paths, got {found!r:.80}.")
    return [one if one is None else encodable(one, where) for one in found]
