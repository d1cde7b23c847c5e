"""Name what learns; everything else is frozen. The report is read off the model and the optimizer, not the names."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from isthmus.adapters import MARK
from isthmus.config import did_you_mean
from isthmus.features import BranchName
from isthmus.train.optimizer import within


@dataclass(frozen=True, kw_only=True)
class FreezeRow:
    """One part of the model: its parameters, how many learn, and the rates and decays of its optimizer groups."""

    part: str
    parameters: int
    trainable: int
    peak_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FreezeReport:
    """What learns, part by part, as `requires_grad` and the optimizer's groups have it."""

    rows: tuple[FreezeRow, ...]

    @property
    def trainable(self) -> int:
        """Number of parameters that learn."""
        return sum(row.trainable for row in self.rows)

    @property
    def parameters(self) -> int:
        """Number of parameters in all."""
        return sum(row.parameters for row in self.rows)

    def lines(self) -> list[str]:
        """The report as aligned text, one line a part."""
        lines = []
        for row in self.rows:
            rates = ", ".join(f"{rate:g}" for rate in row.peak_rates)
            decays = ", ".join(f"{decay:g}" for decay in row.weight_decays)
            state = f"{row.trainable:>13,} learn   lr {rates}   decay {decays}" if row.trainable else "       frozen"
            lines.append(f"{row.part:<12} {row.parameters:>13,} parameters   {state}")
        return lines


def apply(model: nn.Module, names: Sequence[str]) -> None:
    """Let exactly the parameters under these dotted paths learn, and put frozen modules in evaluation mode.

    Of a part with adapters (LoRA) the adapters alone learn.
    A tied weight learns when any of its names is under a path.

    Raises:
        ValueError: a path that matches no parameter, with the nearest that does.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for path in names:
        if not any(within(name, path) for name in parameters):
            raise ValueError(
                f"`train` names {path!r}, which matches no parameter.{did_you_mean(path, _paths(parameters))} "
                f"The parts are: {', '.join(dict.fromkeys(name.partition('.')[0] for name in parameters))}."
            )
    adapted = {_part(name) for name in parameters if MARK in name}
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    for name, parameter in parameters.items():
        if any(within(name, path) for path in names) and (MARK in name or _part(name) not in adapted):
            parameter.requires_grad_(True)
    set_modes(model)


def check_fresh(model: nn.Module, names: Sequence[str], loaded: Container[str]) -> None:
    """Refuse an arrangement whose new weights would stay as they were drawn: `loaded` came from an earlier stage.

    Raises:
        ValueError: parameters of an arrangement are neither under `names` nor loaded.
    """
    for part in ("arrange", *(f"{branch}.arrange" for branch in get_args(BranchName))):
        own = [(name, one) for name, one in model.named_parameters() if within(name, part)]
        left = sum(one.numel() for name, one in own if not one.requires_grad and name not in loaded)
        if left:
            raise ValueError(
                f"The arrangement has {left:,} new parameters that would stay as they were drawn, for train="
                f"{tuple(names)} does not name {part!r}. Add it (--train {' '.join((*names, part))}), or choose an "
                f"arrangement without parameters."
            )


def _part(name: str) -> str:
    """The encoder, connector or language model that a parameter is of; of video and audio, their own."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in get_args(BranchName) else first


def set_modes(model: nn.Module) -> None:
    """Training mode where something learns, evaluation mode (no dropout, fixed statistics) where nothing does.

    A module without parameters follows the module that holds it.
    """
    _set_mode(model, training=True)


def _set_mode(module: nn.Module, *, training: bool) -> None:
    parameters = list(module.parameters())
    if parameters:
        training = any(parameter.requires_grad for parameter in parameters)
    module.training = training
    for child in module.children():
        _set_mode(child, training=training)


def report(model: nn.Module, optimizer: torch.optim.Optimizer) -> FreezeReport:
    """The report of a model and the optimizer over it.

    Raises:
        AssertionError: a parameter learns that no group holds, or a group holds one that does not learn.
    """
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    rows: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (id(parameter) in group_of), f"{name} and the optimizer's groups disagree"
        rows.setdefault(name.partition(".")[0], []).append((name, parameter))
    return FreezeReport(rows=tuple(_row(part, named, group_of) for part, named in rows.items()))


def _row(part: str, named: list[tuple[str, nn.Parameter]], group_of: dict[int, dict]) -> FreezeRow:
    groups = [group_of[id(parameter)] for _, parameter in named if id(parameter) in group_of]
    return FreezeRow(
        part=part,
        parameters=sum(parameter.numel() for _, parameter in named),
        trainable=sum(parameter.numel() for _, parameter in named if parameter.requires_grad),
        peak_rates=tuple(sorted({group["peak_lr"] for group in groups})),
        weight_decays=tuple(sorted({group["weight_decay"] for group in groups})),
    )


def _paths(names: dict[str, nn.Parameter]) -> list[str]:
    """Every dotted path that holds a parameter."""
    paths: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        paths.update((".".join(parts[:depth]), None) for depth in range(1, len(parts) + 1))
    return list(paths)
