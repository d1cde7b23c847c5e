"""Captioned clips in JSON lines: `{"video": "yard/1.mp4", "text": "A dog runs across a yard."}`.

A row may also have an `"id"`, and `"start_s"` and `"end_s"`: the part of the file that is meant, in seconds.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.data.frames import FrameSampling, UniformFrames
from isthmus.data.images import inside
from isthmus.data.sample import VIDEO_MARK, Sample, Turn, marks_of
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import JsonLines, text_of
from isthmus.data.video import FileVideo


@dataclass(frozen=True, kw_only=True)
class ClipFile(SourceConfig):
    """Clips with one text each. Paths of videos are relative to `root` and may not leave it."""

    path: str
    root: str
    question: str = ""
    """What the user says after the clip; empty for a bare caption."""
    frames: FrameSampling = field(default_factory=UniformFrames)
    """Which frames of a clip are seen."""

    def build(self) -> Dataset:
        """The clips. Raises ValueError when the file is missing or has no row."""
        lines = JsonLines(Path(self.path))
        if not len(lines):
            raise ValueError(f"{self.path!r} has no row. Write one JSON object a clip, with `video` and `text`.")
        return _Clips(self, lines)


class _Clips:
    def __init__(self, config: ClipFile, lines: JsonLines) -> None:
        self._config, self._lines = config, lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        where = self._lines.where(checked(index, len(self)))
        row = self._lines[index]
        video, text = text_of(row, "video", where), text_of(row, "text", where)
        if not text.strip() or marks_of(text):
            raise ValueError(f"{where}: a caption is text without marks, got {text[:80]!r}.")
        try:
            inside(Path(self._config.root), video)
        except ValueError as error:
            raise ValueError(f"{where} names no video file: {error}") from error
        start_s, end_s = _seconds(row, "start_s", 0.0, where), _seconds(row, "end_s", math.inf, where)
        if not 0.0 <= start_s < end_s:
            raise ValueError(f"{where} goes from start_s {start_s} to end_s {end_s}: a part begins before it ends.")
        asked = f"{VIDEO_MARK}\n{self._config.question}" if self._config.question else VIDEO_MARK
        return Sample(
            id=str(row.get("id", where)),
            turns=(Turn(role="user", text=asked), Turn(role="assistant", text=text)),
            videos=(
                FileVideo(root=self._config.root, path=video, frames=self._config.frames, start_s=start_s, end_s=end_s),
            ),
        )


def _seconds(row: dict[str, Any], name: str, absent: float, where: str) -> float:
    """The moment that a row names. Raises ValueError when it is no number."""
    found = row.get(name, absent)
    if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
        raise ValueError(f"{where}: `{name}` is a number of seconds, got {str(found)[:80]!r}.")
    return float(found)
