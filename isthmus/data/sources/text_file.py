"""Text alone in JSON lines: `{"text": "..."}` to learn as it is, or `{"question": "...", "text": "..."}`."""

from dataclasses import dataclass
from pathlib import Path

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import JsonLines, text_of


@dataclass(frozen=True, kw_only=True)
class TextFile(SourceConfig):
    """Samples without an image, to keep a language model's text skill while it learns to see."""

    path: str

    def build(self) -> Dataset:
        """The texts. Raises ValueError when the file is missing."""
        return _Texts(JsonLines(Path(self.path)))


class _Texts:
    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        where = self._lines.where(checked(index, len(self)))
        row = self._lines[index]
        text = text_of(row, "text", where)
        if not text.strip():
            raise ValueError(f"{where} has an empty text.")
        asked = (Turn(role="user", text=text_of(row, "question", where)),) if "question" in row else ()
        if any(IMAGE_MARK in one for one in (text, *(turn.text for turn in asked))):
            raise ValueError(f"{where} holds {IMAGE_MARK}, but a text file brings no images. Use a LlavaFile.")
        return Sample(id=str(row.get("id", where)), turns=(*asked, Turn(role="assistant", text=text)))
