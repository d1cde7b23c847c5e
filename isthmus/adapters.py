"""LoRA: small trained matrices beside the frozen linear layers of a language model or encoder, by `peft`.

Source: LoRA (arXiv:2106.09685). Checked against: `peft` itself, merged and not (tests/test_adapters.py).
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

MARK = ".lora_"
"""What the names of adapter weights hold, and no other weight's."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Which linear layers get an adapter, and how large. Of a part with adapters, they alone learn."""

    rank: int = 0
    """Inner width of the adapters; 0 adds none."""
    alpha: float = 32.0
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = 0.05
    targets: tuple[str, ...] = ()
    """Names of the linear layers, such as ("q_proj", "v_proj"); none means every one but the output head."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"{self} needs rank 0 or more, alpha above 0 and dropout from 0 to below 1.")


def add_lora(model: nn.Module, lora: Lora) -> nn.Module:
    """The model with its adapters, which change nothing until they are trained; the model itself when the rank is 0.

    Raises:
        ValueError: `peft` is not installed, or no linear layer has one of the names.
    """
    if not lora.rank:
        return model
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("LoRA needs the package peft: pip install 'isthmus[train]'.") from error
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=_targets(model, lora)
    )
    made: nn.Module = inject_adapter_in_model(config, model)
    return made.requires_grad_(False)


def lora_parameters(model: nn.Module, lora: Lora) -> dict[str, int]:
    """Adapter parameters by the linear layer that they stand beside: rank (in + out) each; from shapes alone.

    Raises:
        ValueError: no linear layer has one of the names.
    """
    if not lora.rank:
        return {}
    beside = {name: model.get_submodule(name) for name in _targets(model, lora)}
    return {
        name: lora.rank * (one.in_features + one.out_features)
        for name, one in beside.items()
        if isinstance(one, nn.Linear)
    }


def merge_lora(model: nn.Module) -> int:
    """Adds every adapter into the layer it stands beside, in place; returns how many there were."""
    found: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if hasattr(child, "lora_A") and hasattr(child, "base_layer")
    ]
    for parent, name, adapted in found:
        adapted.merge(safe_merge=True)
        setattr(parent, name, adapted.get_base_layer())
    return len(found)


def _targets(model: nn.Module, lora: Lora) -> list[str]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head]
    if not lora.targets:
        return linear
    chosen = [name for name in linear if name.rpartition(".")[2] in lora.targets]
    absent = [target for target in lora.targets if not any(name.rpartition(".")[2] == target for name in linear)]
    if absent:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ValueError(f"No linear layer of {type(model).__name__} is named {absent}. There are: {', '.join(known)}.")
    return chosen
