"""Set any field of a recipe from the command line: `--model.encoder.image-size 96`, `--model.connector q-former`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro

from isthmus.cli.commands import own_options
from isthmus.config import did_you_mean, replace_at
from isthmus.connectors import CONNECTORS, ConnectorConfig
from isthmus.connectors.arrange import ARRANGEMENTS, ArrangementConfig
from isthmus.data.prompts import PROMPTS, PromptStyle
from isthmus.encoders import ENCODERS, TILINGS, EncoderConfig, TilingConfig
from isthmus.llms import LLMS, LLMConfig

T = TypeVar("T")

CHOICES: tuple[tuple[type, Mapping[str, type]], ...] = (
    (EncoderConfig, ENCODERS),
    (TilingConfig, TILINGS),
    (ConnectorConfig, CONNECTORS),
    (ArrangementConfig, ARRANGEMENTS),
    (LLMConfig, LLMS),
    (PromptStyle, PROMPTS),
)
"""Fields whose type can be chosen by name, and the names."""


def with_fields(config: T, arguments: Sequence[str], *, command: str) -> T:
    """A copy of `config` with the fields set that the arguments name. `--help` among them prints every field and ends.

    A field that holds a connector (an encoder, an arrangement, a language model, a prompt style) takes the name of
    another kind, which starts from its own defaults; fields of the new kind may follow.

    Raises:
        ValueError: no such field or kind, with the nearest known ones (options of the command among them), or values
            that the config refuses.
    """
    config, rest = _choose_kinds(config, arguments)
    chosen, unknown = tyro.cli(
        type(config),
        default=config,
        args=rest,
        prog=f"isthmus {command}",
        description=f"Every field with its value. Options of the command itself: isthmus {command.split()[0]} -h\n\n"
        f"These take the name of a kind: {'; '.join(_kind_options(config))}.",
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )
    if unknown:
        known = [*option_names(config), *own_options(command.split()[0])]
        raise ValueError(f"No field {unknown[0]!r}.{did_you_mean(unknown[0], known)} See isthmus {command} --help.")
    return chosen


def option_names(config: object, prefix: str = "--") -> list[str]:
    """Every option that sets a field of this config, as typed."""
    names: list[str] = []
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return names
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        names.append(name)
        names += option_names(value, f"{name}.")
        if isinstance(value, tuple):
            for number, item in enumerate(value):
                names += option_names(item, f"{name}.{number}.")
    return names


def _kind_options(config: object) -> list[str]:
    """'--model.arrange (concatenate, anyres, ...)' for every field that holds one of several kinds."""
    found = []
    for name in option_names(config):
        kinds = _kinds(_at(config, name.removeprefix("--").replace("-", "_")))
        if kinds is not None:
            found.append(f"{name} ({', '.join(kinds)})")
    return found


def _choose_kinds(config: T, arguments: Sequence[str]) -> tuple[T, list[str]]:
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        path = argument.removeprefix("--").replace("-", "_")
        kinds = _kinds(_at(config, path)) if argument.startswith("--") else None
        if kinds is None:
            rest.append(argument)
            continue
        if not waiting or waiting[0].startswith("--"):
            raise ValueError(f"{argument} needs a name: {', '.join(kinds)}.")
        name = waiting.pop(0)
        if name not in kinds:
            raise ValueError(
                f"{argument} {name!r} is unknown.{did_you_mean(name, kinds)} There are: {', '.join(kinds)}."
            )
        config = replace_at(config, path, kinds[name]())
    return config, rest


def _at(config: object, path: str) -> Any:
    """The value at a dotted path, or None where there is no such field."""
    for part in path.split("."):
        if isinstance(config, tuple) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
            continue
        if not dataclasses.is_dataclass(config) or part not in {field.name for field in dataclasses.fields(config)}:
            return None
        config = getattr(config, part)
    return config


def _kinds(value: object) -> Mapping[str, type] | None:
    return next((kinds for base, kinds in CHOICES if isinstance(value, base)), None)
