"""Where each number of a recipe comes from: read from the table in the recipe's docstring, matched to its fields."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from isthmus.recipes import RECIPES

_LINE = re.compile(r"^\s{4,}([\w.]+(?:, [\w.]+)*)\s*: (.+)$")
_HEADING = re.compile(r"^\s*Sources?\b.*:$")
_TAKEN = re.compile(r"as in (?P<recipe>[\w-]+(?:/[\w-]+)*)(?: \((?P<path>[\w.]+)\))?")
DEFAULT = "the library's default"
NO_PAPER = ("ours: ", "not used: ")
"""How the source of a value begins that no paper sets."""
OURS = {
    "checkpointing": "ours: memory for time, no result",
    "views_at_once": "ours: memory for time, no result",
    "tile_several": "ours: whether several images of a sample are tiled",
    "whole_batches": "ours: whether a batch is of one source",
    "unfit": "ours: what is done with a sample that does not fit",
    "max_images": "ours: the most images of a sample",
    "frames": "ours: the frames of a video, where the file has any",
    "audio_rate": "ours: the samples a second of a sound, where the file has any",
}
"""Fields that no paper sets, by name: a line of a table about what they stand in is not about them."""


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
    return sources.get(_covering(path, sources), DEFAULT)


def followed(path: str, values: Mapping[str, object], sources: dict[str, str]) -> str:
    """The source of a value; one that says "as in RECIPE" goes on with what that recipe's table says of the same value.

    A chain of tables that say no more than "as in" is told by its last. "as in RECIPE (PATH)" takes over what stands
    at another path there. What the other recipe has otherwise has no source there, and the words stand alone. What
    changes nothing beside the other values, or is a field of ours, is called so, unless a table names it itself.
    """
    key = _covering(path, sources)
    source = sources.get(key, DEFAULT)
    taken = _TAKEN.search(source)
    if taken is not None and taken["recipe"] in RECIPES:
        before, theirs = _of_recipe(taken["recipe"])
        there = path if taken["path"] is None else taken["path"] + path.removeprefix(key)
        if there in before and before[there] == values[path]:
            found = followed(there, before, theirs)
            passed_on = source == taken[0] and found.startswith("as in ")
            return found if passed_on or found.startswith(NO_PAPER) else f"{source} (there: {found})"
    return _own(path, values, key) or source


def provenance(config: object, docstring: str, original: object | None = None) -> list[Value]:
    """Every value of a config with its source. What differs from `original` is marked as set by the user."""
    sources = table(docstring)
    values = dict(leaves(config))
    before: dict[str, Any] = values if original is None else dict(leaves(original))
    return [
        Value(path, value, followed(path, values, sources) if before.get(path, ...) == value else "set by you")
        for path, value in values.items()
    ]


def _covering(path: str, sources: dict[str, str]) -> str:
    """The longest part of the path that the table names; empty when it names none."""
    parts = path.split(".")
    wholes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((whole for whole in wholes if whole in sources), "")


def _own(path: str, values: Mapping[str, object], key: str) -> str:
    """Why no paper sets this value, where its table names no more than what it stands in (`key`); empty otherwise."""
    parts = path.split(".")
    for end, part in enumerate(parts, start=1):
        if end <= key.count(".") + bool(key):
            continue
        whole = ".".join(parts[:end])
        if part in OURS:
            return OURS[part]
        if part == "lora" and values.get(f"{whole}.rank") == 0:
            return "not used: no adapters"
        if whole == "model.captions" and values.get("model.llm", ...) not in (None, ...):
            return "not used: captions are read where there is no language model"
        if whole == "schedule.warmup_fraction" and values.get("schedule.warmup_steps") is not None:
            return "not used: warmup_steps counts"
    return ""


@cache
def _of_recipe(name: str) -> tuple[dict[str, object], dict[str, str]]:
    """A recipe's values by path, and its table of sources."""
    return dict(leaves(RECIPES[name]())), table(RECIPES[name].make.__doc__ or "")
