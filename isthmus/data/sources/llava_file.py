"""LLaVA's conversation files: a JSON list (or JSON lines) of objects with `id`, `image` and `conversations`.

Source: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md. `conversations` holds turns `{"from": "human" | "gpt", "value":
"..."}`; `image` is a path, a list of paths, or absent. As in `preprocess_multimodal` there, a turn's single `<image>`
is moved to its front, followed by a newline. Differs: an image without its mark, which the original would train on
blind, is refused by name.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from isthmus.data.images import FileImage
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, SourceConfig, checked
from isthmus.data.sources.json_lines import JsonLines, encodable

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
    """Conversations about images. Image paths are relative to `root` and may not leave it."""

    path: str
    root: str
    max_images: int = 16
    """A sample with more images than this is refused."""

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
        paths = _paths(row, where, self._config.max_images)
        turns = _turns(row, where)
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
        if marks != len(paths):
            raise ValueError(
                f"{where} (id {row.get('id')!r}) has {marks} {IMAGE_MARK} marks and {len(paths)} images. "
                f"Write one {IMAGE_MARK} for each image, where its tokens go."
            )
        return Sample(
            id=str(row.get("id", where)),
            turns=turns,
            images=tuple(FileImage(root=self._config.root, path=path) for path in paths),
        )


def _paths(row: dict[str, Any], where: str, max_images: int) -> list[str]:
    image = row.get("image")
    paths = [] if image is None else image if isinstance(image, list) else [image]
    if not all(isinstance(path, str) for path in paths):
        raise ValueError(f"{where}: `image` is a path or a list of paths, got {str(image)[:80]}.")
    if len(paths) > max_images:
        raise ValueError(f"{where} has {len(paths)} images, more than max_images={max_images}.")
    return [encodable(path, where) for path in paths]


def _turns(row: dict[str, Any], where: str) -> tuple[Turn, ...]:
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
        turns.append(Turn(role=role, text=_mark_first(encodable(one["value"], where))))
    if not any(turn.role == "assistant" and turn.text.strip() for turn in turns):
        raise ValueError(f"{where} has no turn from 'gpt' with text: there is nothing to learn from it.")
    return tuple(turns)


def _mark_first(text: str) -> str:
    """A turn's single mark moved to its front; turns with several marks stay interleaved as they are."""
    if text.count(IMAGE_MARK) != 1:
        return text
    return f"{IMAGE_MARK}\n{text.replace(IMAGE_MARK, '').strip()}"
