"""Text alone in JSON lines: `{"text": "..."}` to learn as it is, or `{"question": "...", "text": "..."}`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig
from isthmus.data.sources.json_lines import LineSamples, text_of


@dataclass(frozen=True, kw_only=True)
class TextFile(SourceConfig):
    """Samples without an image, to keep a language model's text skill while it learns to see."""

    path: str

    def build(self) -> Dataset:
        """The texts. Raises ValueError when the file is missing."""
        return LineSamples(Path(self.path), _sample)


def _sample(row: dict[str, Any], where: str) -> Sample:
    text = text_of(row, "text", where)
    if not text.strip():
        raise ValueError(f"{where} has an empty text.")
    asked = (Turn(role="user", text=text_of(row, "question", where)),) if "question" in row else ()
    if any(IMAGE_MARK in one for one in (text, *(turn.text for turn in asked))):
        raise ValueError(f"{where} holds {IMAGE_MARK}, but a text file brings no images. Use a LlavaFile.")
    return Sample(id=str(row.get("id", where)), turns=(*asked, Turn(role="assistant", text=text)))
