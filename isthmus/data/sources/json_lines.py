"""JSON lines read by number: offsets are kept, a line is parsed when it is asked for, and errors name file and line."""

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isthmus.data.sample import Sample
from isthmus.data.sources.base import checked

MAX_LINE_BYTES = 16_000_000
_CHUNK = 1 << 22


class JsonLines:
    """The non-empty lines of a file. `lines[i]` is the object of line i; a file of any length costs 8 bytes a line.

    Raises:
        ValueError: no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets, self._numbers, self._end = _scan(path)

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, index: int) -> str:
        """File and line number, for messages."""
        return f"{self.path.name} line {self._numbers[index]}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The object. Raises ValueError naming file and line when it is not one JSON object of bounded length."""
        start, end = self._offsets[index], self._offsets[index + 1] if index + 1 < len(self) else self._end
        if end - start > MAX_LINE_BYTES:
            raise ValueError(f"{self.where(index)} has {end - start} bytes, more than the {MAX_LINE_BYTES} allowed.")
        with self.path.open("rb") as file:
            file.seek(start)
            return parse_object(file.read(end - start), self.where(index))


class LineSamples:
    """A dataset of one sample a line: `sample_of` makes it from the line's object and the words for where that stands.

    Raises:
        ValueError: no such file.
    """

    def __init__(self, path: Path, sample_of: Callable[[dict[str, Any], str], Sample]) -> None:
        self._lines, self._sample_of = JsonLines(path), sample_of

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        """The sample. Raises ValueError naming file and line when it cannot be made."""
        where = self._lines.where(checked(index, len(self)))
        return self._sample_of(self._lines[index], where)


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object in these bytes.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deep, or not an object; `where` is named.
    """
    try:
        found = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not valid JSON: {error.msg} at column {error.colno}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deep.") from error
    except ValueError as error:
        raise ValueError(f"{where} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} must be one JSON object, got {type(found).__name__}.")
    return found


def text_of(row: dict[str, Any], name: str, where: str) -> str:
    """The text field of a row. Raises ValueError when it is missing or not text."""
    if not isinstance(row.get(name), str):
        raise ValueError(f"{where} needs a text field {name!r}; it has {sorted(map(str, row))[:12]}.")
    return encodable(str(row[name]), where)


def encodable(text: str, where: str) -> str:
    """The text itself. Raises ValueError when it holds half of a surrogate pair, which no tokenizer can take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half of a surrogate pair: {error.reason} at {error.start}.") from error
    return text


def _scan(path: Path) -> tuple["array[int]", "array[int]", int]:
    """Offsets and numbers of the lines that are not blank, and the file's length."""
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}. Give the path of a JSON lines file.")
    offsets, numbers = array("q"), array("q")
    start = number = 0
    with path.open("rb") as file:
        while line := file.readline(_CHUNK):
            first, length = line, len(line)
            while line and not line.endswith(b"\n"):
                line = file.readline(_CHUNK)
                length += len(line)
            number += 1
            if length > len(first) or first.strip():
                offsets.append(start)
                numbers.append(number)
            start += length
    return offsets, numbers, start
