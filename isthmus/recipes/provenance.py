"""Where each number of a recipe comes from: read from the table in the recipe's docstring, matched to its fields."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(r"^\s{4,}([\w.]+(?:, [\w.]+)*)\s*: (.+)$")
_HEADING = re.compile(r"^\s*Sources?\b.*:$")
DEFAULT = "the library's default"


@dataclass(frozen=True)
class Value:
    """One value of a config by its dotted path, and its source."""

    path: str
    value: object
    source: str


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value in a config by dotted path; items of a tuple of configs are numbered, as in `data.0.weight`.

    A config inside stands at its own path with the name of its class as the value, then its fields.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        if prefix:
            yield prefix, type(config).__name__
        for field in dataclasses.fields(config):
            yield from leaves(getattr(config, field.name), f"{prefix}.{field.name}" if prefix else field.name)
    elif isinstance(config, tuple) and any(dataclasses.is_dataclass(item) for item in config):
        for number, item in enumerate(config):
            yield from leaves(item, f"{prefix}.{number}")
    else:
        yield prefix, config


def table(docstring: str) -> dict[str, str]:
    """The lines `path, path: source` under the docstring's `Sources` heading; a source may go on in deeper lines."""
    sources: dict[str, str] = {}
    paths: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if _HEADING.match(line):
            inside = True
        elif inside and not line.strip():
            inside = False
        elif inside and (found := _LINE.match(line)):
            paths = found[1].split(", ")
            sources.update(dict.fromkeys(paths, found[2].strip()))
        elif inside:
            sources.update({path: f"{sources[path]} {line.strip()}" for path in paths})
    return sources


def source_of(path: str, sources: dict[str, str]) -> str:
    """The source given for this path, or for the longest part of it that the table names."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        known = ".".join(parts[:end])
        if known in sources:
            return sources[known]
    return DEFAULT


def provenance(config: object, docstring: str, original: object | None = None) -> list[Value]:
    """Every value of a config with its source. What differs from `original` is marked as set by the user."""
    sources = table(docstring)
    before: dict[str, Any] = dict(leaves(config if original is None else original))
    return [
        Value(path, value, source_of(path, sources) if before.get(path, ...) == value else "set by you")
        for path, value in leaves(config)
    ]
