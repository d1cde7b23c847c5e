"""LLaVA's conversation files: a JSON list (or JSON lines) of objects with `id`, `image` and `conversations`.

Source: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md; LLaVA-VL/LLaVA-NeXT, M4-Instruct (arXiv:2407.07895).
`conversations` holds turns `{"from": "human" | "gpt", "value": "..."}`; `image`, `video` and `audio` are a path each, a
list of paths, or absent. A video's mark is `<video>`, or `<image>` where no image came with it (as LLaVA-NeXT has it).
As in `preprocess_multimodal`, a turn's single mark is moved to its front, followed by a newline. Differs: an image
without its mark, which the original would train on blind, is refused by name.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from isthmus.data.frames import FrameSampling, UniformFrames
from isthmus.data.images import FileImage
from isthmus.data.sample import ANY_MARK, AUDIO_MARK, IMAGE_MARK, VIDEO_MARK, Sample, Turn, marks_of
from isthmus.data.sound import FileSound
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import JsonLines, encodable
from isthmus.data.video import FileVideo

MAX_FILE_BYTES = 4_000_000_000
ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


@dataclass(frozen=True, kw_only=True)
class LlavaFile(SourceConfig):
    """Conversations about images, videos and sounds. Paths are relative to `root` and may not leave it."""

    path: str
    root: str
    max_images: int = 16
    """A sample with more images than this is refused; so is one with more videos, or more sounds."""
    frames: FrameSampling = field(default_factory=UniformFrames)
    """Which frames of a video are seen."""
    audio_rate: int = 16_000
    """Samples a second that the model's audio encoder hears."""

    def build(self) -> Dataset:
        """The conversations. Raises ValueError when the file is missing or is not a JSON list (or JSON lines)."""
        path = Path(self.path)
        return _Conversations(self, JsonLines(path) if path.suffix == ".jsonl" else _List(path))


@runtime_checkable
class _Rows(Protocol):
    def __len__(self) -> int: ...

    def where(self, index: int) -> str: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class _List:
    """The objects of one JSON list."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"There is no file {str(path)!r}. Give the path of a LLaVA-style JSON file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes: write it as JSON lines (.jsonl).")
        try:
            rows = json.loads(path.read_bytes().decode("utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path.name} line {error.lineno} is not valid JSON: {error.msg} at column {error.colno}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path.name} is not a JSON text that can be read: {error}") from error
        if not isinstance(rows, list):
            raise ValueError(f"{path.name} must be a JSON list of conversations, got {type(rows).__name__}.")
        self._path = path
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, index: int) -> str:
        return f"{self._path.name} item {index}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        if not isinstance(row, dict):
            raise ValueError(f"{self.where(index)} must be a JSON object, got {type(row).__name__}.")
        return row


class _Conversations:
    def __init__(self, config: LlavaFile, rows: _Rows) -> None:
        self._config = config
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        where = self._rows.where(checked(index, len(self)))
        row = self._rows[index]
        config = self._config
        images, videos, sounds = (_paths(row, name, where, config.max_images) for name in ("image", "video", "audio"))
        turns = turns_of(row, where, image_mark=VIDEO_MARK if videos and not images else IMAGE_MARK)
        marks = [mark for turn in turns for mark in marks_of(turn.text)]
        for mark, paths in ((IMAGE_MARK, images), (VIDEO_MARK, videos), (AUDIO_MARK, sounds)):
            if marks.count(mark) != len(paths):
                name = {IMAGE_MARK: "images", VIDEO_MARK: "videos", AUDIO_MARK: "sounds"}[mark]
                raise ValueError(
                    f"{where} (id {row.get('id')!r}) has {marks.count(mark)} {mark} marks and {len(paths)} {name}. "
                    f"Write one {mark} for each, where its tokens go."
                )
        root = config.root
        return Sample(
            id=str(row.get("id", where)),
            turns=turns,
            images=tuple(FileImage(root=root, path=path) for path in images),
            videos=tuple(FileVideo(root=root, path=path, frames=config.frames) for path in videos),
            sounds=tuple(FileSound(root=root, path=path, rate=config.audio_rate) for path in sounds),
        )


def _paths(row: dict[str, Any], name: str, where: str, most: int) -> list[str]:
    found = row.get(name)
    paths = [] if found is None else found if isinstance(found, list) else [found]
    if not all(isinstance(path, str) for path in paths):
        raise ValueError(f"{where}: `{name}` is a path or a list of paths, got {str(found)[:80]}.")
    if len(paths) > most:
        raise ValueError(f"{where} has {len(paths)} {name}s, more than max_images={most}.")
    return [encodable(path, where) for path in paths]


def turns_of(row: dict[str, Any], where: str, *, image_mark: str = IMAGE_MARK) -> tuple[Turn, ...]:
    """The turns of an object's `conversations`, with `image_mark` where `<image>` stands.

    Raises:
        ValueError: no such list, a turn of another form, or no answer; `where` is named.
    """
    said = row.get("conversations")
    if not isinstance(said, list) or not said:
        raise ValueError(f"{where} needs a list `conversations` with one turn at least.")
    turns = []
    for place, one in enumerate(said):
        role = ROLES.get(str(one.get("from"))) if isinstance(one, dict) else None
        if role is None or not isinstance(one.get("value"), str):
            raise ValueError(
                f"{where}, turn {place}: a turn is {{'from': one of {tuple(ROLES)}, 'value': text}}, "
                f"got {str(one)[:80]}."
            )
        turns.append(Turn(role=role, text=_mark_first(encodable(one["value"], where).replace(IMAGE_MARK, image_mark))))
    if not any(turn.role == "assistant" and turn.text.strip() for turn in turns):
        raise ValueError(f"{where} has no turn from 'gpt' with text: there is nothing to learn from it.")
    return tuple(turns)


def _mark_first(text: str) -> str:
    """A turn's single mark moved to its front; turns with several marks stay interleaved as they are."""
    marks = marks_of(text)
    return text if len(marks) != 1 else f"{marks[0]}\n{ANY_MARK.sub('', text).strip()}"
