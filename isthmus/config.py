"""Any config to JSON and back, and changes to a config by dotted path.

Configs are frozen keyword-only dataclasses that hold tuples, numbers, strings, booleans, `None` and other configs.
In JSON a config is an object whose `"type"` is its class name; the reader is given the classes it may make, so a
hostile file can name nothing else.
"""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest known names, or the empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""


def to_json(config: object) -> Any:
    """The JSON value of a config (or of a tuple, number, string, boolean or `None` inside one)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"type": type(config).__name__, **fields}
    if isinstance(config, (tuple, list)):
        return [to_json(item) for item in config]
    if isinstance(config, Mapping):
        return {str(key): to_json(value) for key, value in config.items()}
    if config is None or isinstance(config, (str, int, float, bool)):
        return config
    raise ValueError(f"A config may hold configs, tuples, numbers, strings, booleans and None, not {type(config)}.")


def from_json(data: Any, types: Mapping[str, type]) -> Any:
    """The config that `to_json` wrote. `types` maps class names to the dataclasses that may be made.

    Raises:
        ValueError: an unknown type, an unknown field, or a missing field, with the nearest known name.
    """
    if isinstance(data, list):
        return tuple(from_json(item, types) for item in data)
    if not isinstance(data, dict):
        return data
    if "type" not in data:
        return {key: from_json(value, types) for key, value in data.items()}
    name = data["type"]
    if name not in types:
        raise ValueError(f"Unknown config type {name!r}.{did_you_mean(str(name), types)}")
    made = types[name]
    known = [field.name for field in dataclasses.fields(made)]
    for key in data:
        if key != "type" and key not in known:
            raise ValueError(f"{name} has no field {key!r}.{did_you_mean(key, known)} It has: {', '.join(known)}.")
    values = {key: from_json(value, types) for key, value in data.items() if key != "type"}
    try:
        return made(**values)
    except TypeError as error:
        raise ValueError(f"Cannot make {name} from its JSON: {error}") from error


def check_choices(config: object) -> None:
    """Refuse a config, or one anywhere inside it, with a field that is none of those its `Literal` allows.

    Raises:
        ValueError: such a field, with its choices and the nearest of them.
    """
    if isinstance(config, tuple):
        for item in config:
            check_choices(item)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return
    allowed = _choices(type(config))
    for field in dataclasses.fields(config):
        chosen = getattr(config, field.name)
        choices = allowed.get(field.name)
        if choices is not None and chosen not in choices:
            listed = ", ".join(map(repr, choices))
            raise ValueError(
                f"{type(config).__name__}({field.name}={chosen!r}): it must be one of {listed}."
                f"{did_you_mean(str(chosen), [one for one in choices if isinstance(one, str)])}"
            )
        check_choices(chosen)


@lru_cache(maxsize=512)
def _choices(made: type) -> dict[str, tuple[object, ...]]:
    """The fields of a dataclass that are a `Literal`, or one or None, and what each may be."""
    found: dict[str, tuple[object, ...]] = {}
    for name, hint in get_type_hints(made).items():
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if all(part is type(None) or get_origin(part) is Literal for part in parts):
            found[name] = tuple(value for part in parts for value in (get_args(part) or (None,)))
    return found


def fingerprint(config: object) -> str:
    """Sixteen hexadecimal digits that two configs share exactly when their JSON is equal."""
    text = json.dumps(to_json(config), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def replace_at(config: T, path: str, value: object) -> T:
    """A copy of `config` with the field at a dotted path (`"model.encoder.image_size"`, `"data.0.weight"`) replaced.

    Raises:
        ValueError: a part of the path is not a field, with the nearest that is.
    """
    head, _, rest = path.partition(".")
    if isinstance(config, tuple) and rest and head.isdigit() and int(head) < len(config):
        place = int(head)
        return cast(T, (*config[:place], replace_at(config[place], rest, value), *config[place + 1 :]))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"Cannot set {path!r}: {config!r} is a value, it has no fields.")
    known = [field.name for field in dataclasses.fields(config)]
    if head not in known:
        raise ValueError(f"{type(config).__name__} has no field {head!r}.{did_you_mean(head, known)}")
    new = replace_at(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: new})
