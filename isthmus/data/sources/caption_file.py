"""Captions in JSON lines: `{"image": "cats/1.jpg", "text": "Two cats on a sofa."}`, optionally with an `"id"`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.images import FileImage
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.json_lines import LineSamples, text_of


@dataclass(frozen=True, kw_only=True)
class CaptionFile(SourceConfig):
    """Images with one text each. Image paths are relative to `root` and may not leave it."""

    path: str
    root: str
    question: str = ""
    """What the user says after the image; empty for a bare caption."""

    def build(self) -> Dataset:
        """The captions. Raises ValueError when the file is missing."""
        return LineSamples(Path(self.path), self._sample)

    def _sample(self, row: dict[str, Any], where: str) -> Sample:
        image, text = text_of(row, "image", where), text_of(row, "text", where)
        if not text.strip() or IMAGE_MARK in text:
            raise ValueError(f"{where}: a caption is text without {IMAGE_MARK}, got {text[:80]!r}.")
        asked = f"{IMAGE_MARK}\n{self.question}" if self.question else IMAGE_MARK
        return Sample(
            id=str(row.get("id", where)),
            turns=(Turn(role="user", text=asked), Turn(role="assistant", text=text)),
            images=(FileImage(root=self.root, path=image),),
        )
