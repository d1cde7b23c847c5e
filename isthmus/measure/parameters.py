"""Parameters of every part by name, from configs alone, and which of them learn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from isthmus.branches import Branch
from isthmus.config import did_you_mean
from isthmus.encoders import EncoderConfig
from isthmus.features import LLMShape
from isthmus.model import Model


@dataclass(frozen=True, kw_only=True)
class Count:
    """Parameters of a part: all, those that learn, and those of its adapters (LoRA), which all includes."""

    parameters: int = 0
    learned: int = 0
    adapters: int = 0


@dataclass(frozen=True, kw_only=True)
class Named:
    """The parameters of a part by name, and those of its adapters by the layer that they stand beside."""

    weights: Mapping[str, int]
    adapters: Mapping[str, int]

    def count(self, train: Iterable[str]) -> Count:
        """With what these dotted paths name learning; of a part with adapters they alone learn."""
        paths = tuple(train)
        learning = self.adapters or self.weights
        adapters = sum(self.adapters.values())
        return Count(
            parameters=sum(self.weights.values()) + adapters,
            learned=sum(count for name, count in learning.items() if any(below(name, path) for path in paths)),
            adapters=adapters,
        )


def below(name: str, path: str) -> bool:
    """Whether a name is that of a dotted path, or lies below it."""
    return name == path or name.startswith(f"{path}.")


def named_parts(model: Model) -> dict[str, Named]:
    """Every part of a model: encoder (counted as a whole), connector, arrange, llm, and those of its branches."""
    source = model.source()
    parts = {"encoder": _encoder("encoder", model.encoder)}
    with torch.device("meta"):
        if model.llm is None:
            return parts | {"connector": _module("connector", model.connector.build_alone(source))}
        target = model.target()
        parts["connector"] = _module("connector", model.connector.build(source, target))
        parts["arrange"] = _module("arrange", model.arrange.build(target))
    adapters = {f"llm.model.{name}": count for name, count in model.llm.adapters().items()}
    parts["llm"] = Named(weights=_module("llm.model", model.llm.skeleton()).weights, adapters=adapters)
    for name, branch in model.branches.items():
        parts |= _branch_parts(name, branch, target)
    return parts


def _branch_parts(name: str, branch: Branch, target: LLMShape) -> dict[str, Named]:
    with torch.device("meta"):
        connector, arrange = branch.connector.build(branch.encoder.shape(), target), branch.arrange.build(target)
    return {
        f"{name}.encoder": _encoder(f"{name}.encoder", branch.encoder),
        f"{name}.connector": _module(f"{name}.connector", connector),
        f"{name}.arrange": _module(f"{name}.arrange", arrange),
    }


def check_paths(parts: Mapping[str, Named], train: Iterable[str]) -> None:
    """Raises ValueError when a path names no parameter, or something inside an encoder."""
    every = [*parts, *(name for part in parts.values() for name in part.weights)]
    for path in train:
        inside = next((part for part in parts if part.endswith("encoder") and path.startswith(f"{part}.")), None)
        if inside is not None:
            raise ValueError(f"A cost counts the encoder as a whole: name {inside!r} in train, not {path!r}.")
        if not any(below(name, path) for name in every):
            raise ValueError(f"No parameter is called {path!r}.{did_you_mean(path, every)}")


def _encoder(name: str, encoder: EncoderConfig) -> Named:
    adapters = encoder.adapters()
    return Named(weights={name: encoder.parameters()}, adapters={name: adapters} if adapters else {})


def _module(prefix: str, module: nn.Module) -> Named:
    weights = {f"{prefix}.{name}": parameter.numel() for name, parameter in module.named_parameters()}
    return Named(weights=weights, adapters={})
