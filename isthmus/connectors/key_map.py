"""Key maps: the names of an official checkpoint's weights against ours, in both directions, loaded strictly.

A connector's file holds its map as one table. `*` stands for a layer's number; a name without its ending means both
`.weight` and `.bias`. Where the official weight is kept differently (several matrices in one, or used as `x @ proj`)
the entry says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from isthmus.config import did_you_mean


@dataclass(frozen=True)
class Entry:
    """One official name and ours; several of ours when the official rows are those of ours, one after another."""

    official: str
    ours: tuple[str, ...]
    transposed: bool = False
    batched: bool = False
    """The official weight has an axis of length 1 in front, as learned queries often have."""


@dataclass(frozen=True)
class KeyMap:
    """Official names against ours, for the part of a checkpoint below `prefix`."""

    prefix: str
    """What stands before the names in the published checkpoint, such as "model.connector."."""
    entries: tuple[Entry, ...]

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Official weights (named below the prefix) under our names; a name outside the map stays as it is."""
        made: dict[str, Tensor] = {}
        for key, value in state.items():
            found = next(((entry, rest) for entry in self.entries if (rest := _rest(entry.official, key))), None)
            if found is None:
                made[key] = value
                continue
            entry, (number, ending) = found
            value = value[0] if entry.batched else value.T if entry.transposed else value
            parts = value.chunk(len(entry.ours)) if len(entry.ours) > 1 else (value,)
            for name, part in zip(entry.ours, parts, strict=True):
                made[name.replace("*", number) + ending] = part.contiguous()
        return made

    def to_official(self, state: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Our weights, or their gradients, under the official names. What is `None` is left out."""
        parts: dict[str, list[Tensor]] = {}
        swapped: set[str] = set()
        batched: set[str] = set()
        for entry in self.entries:
            for ours in entry.ours:
                for key, value in state.items():
                    rest = _rest(ours, key)
                    if rest is None or value is None:
                        continue
                    official = entry.official.replace("*", rest[0]) + rest[1]
                    parts.setdefault(official, []).append(value)
                    if entry.transposed:
                        swapped.add(official)
                    if entry.batched:
                        batched.add(official)
        joined = {key: values[0] if len(values) == 1 else torch.cat(values) for key, values in parts.items()}
        turned = {key: value.T.contiguous() if key in swapped else value for key, value in joined.items()}
        return {key: value[None] if key in batched else value for key, value in turned.items()}


def load_official(module: nn.Module, keys: KeyMap, state: Mapping[str, Tensor], source: str) -> None:
    """Copies official weights (named below the map's prefix) into `module`, if names and shapes are exactly right.

    Raises:
        ValueError: names every missing, unknown and misshapen official key (the first ten of each); the module is
            unchanged.
    """
    wanted = keys.to_official(module.state_dict())
    missing = [key for key in wanted if key not in state]
    unknown = [f"{key}{did_you_mean(key, missing)}" for key in state if key not in wanted]
    shapes = [
        f"{key} is {tuple(value.shape)}, wanted {tuple(wanted[key].shape)}"
        for key, value in state.items()
        if key in wanted and wanted[key].shape != value.shape
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    said = [
        f"{len(found)} {kind}: {'; '.join(found[:10])}{'; ...' if len(found) > 10 else ''}"
        for kind, found in problems.items()
        if found
    ]
    if said:
        raise ValueError(
            f"The official weights of {source} do not fit {type(module).__name__}. {' | '.join(said)}. "
            f"Build it with the sizes they were trained with."
        )
    module.load_state_dict(keys.to_ours(state))


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    stem = re.escape(pattern).replace(r"\*", r"(?P<number>\d+)")
    return re.compile(stem + r"(?P<ending>\.weight|\.bias)?")


def _rest(pattern: str, key: str) -> tuple[str, str] | None:
    """The layer's number and the ending, when the key is of this pattern."""
    match = _expression(pattern).fullmatch(key)
    if match is None:
        return None
    groups = match.groupdict()
    return groups.get("number") or "", groups["ending"] or ""
