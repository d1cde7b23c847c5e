"""AdamW: its config, its parameter groups by part, and its state as named tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_ENTRIES = ("step", "exp_avg", "exp_avg_sq")
_BEFORE_BLOCKS = ("embed", "cls_token", "reg_token", "dist_token", "mask_token", "pre_lay", "norm_pre")
"""What is in the names of parameters before a tower's first block, in `transformers` (`pre_layrnorm`) and timm."""


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with one peak rate, or one for each part.

    `rates` gives a part, named by its dotted path, its own peak rate: `(("llm", 2e-5), ("connector", 1e-3))`; the
    longest path that fits a parameter wins. Norms and biases (parameters of fewer than two axes) get no weight decay
    unless `decay_norms_and_biases`. Gradients are clipped to `clip_norm` over all parts together; `None` clips nothing.
    `layer_decay` lowers the rates of a part towards its input, `(("encoder", 0.95),)`: its last block learns at 0.95
    times its rate, the one before at 0.95 ** 2, what stands before the first block at one power more than that, what
    stands outside the blocks at 0.95 (BEiT, arXiv:2106.08254, as salesforce/LAVIS has it for BLIP-2).

    Raises:
        ValueError: a rate, decay or clip that is not positive where it must be.
    """

    peak_lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    rates: tuple[tuple[str, float], ...] = ()
    decay_norms_and_biases: bool = False
    clip_norm: float | None = 1.0
    layer_decay: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        wrong = [f"{name}={value}" for name, value in (("peak_lr", self.peak_lr), *self.rates) if not value >= 0]
        if wrong or self.weight_decay < 0:
            raise ValueError(f"Learning rates and weight_decay must be 0 or more, got {wrong or self.weight_decay}.")
        if any(not 0 < factor <= 1 for _, factor in self.layer_decay):
            raise ValueError(f"layer_decay must lie above 0 and at most 1, got {self.layer_decay}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, got {self.clip_norm}. Use None to clip nothing.")

    def rate(self, name: str) -> float:
        """The peak rate of the parameter with this dotted name."""
        fitting = [(len(path), rate) for path, rate in self.rates if within(name, path)]
        return max(fitting)[1] if fitting else self.peak_lr

    def groups(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> list[dict[str, Any]]:
        """Optimizer groups of the trainable parameters: one for each (peak rate, weight decay) that occurs.

        Raises:
            ValueError: a path in `rates` fits no trainable parameter.
        """
        trainable = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        for field, named in (("rates", self.rates), ("layer_decay", self.layer_decay)):
            for path, _ in named:
                if not any(within(name, path) for name, _ in trainable):
                    raise ValueError(
                        f"AdamW.{field} names {path!r}, but nothing that trains has this path. "
                        f"Name it in the stage's `train` too, or drop it."
                    )
        scales = self._scales([name for name, _ in trainable])
        found: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in trainable:
            plain = parameter.ndim < 2 and not self.decay_norms_and_biases
            key = (self.rate(name) * scales[name], 0.0 if plain else self.weight_decay)
            group = found.setdefault(key, {"params": [], "names": [], "peak_lr": key[0], "weight_decay": key[1]})
            group["params"].append(parameter)
            group["names"].append(name)
        return list(found.values())

    def _scales(self, names: list[str]) -> dict[str, float]:
        """What layer-wise decay leaves of the rate of each of these parameters."""
        scales = dict.fromkeys(names, 1.0)
        for path, factor in self.layer_decay:
            blocks = {name: _block(name, path) for name in names if within(name, path)}
            count = 1 + max((block for block in blocks.values() if block is not None), default=-1)
            for name, block in blocks.items():
                before = block is None and any(part in name for part in _BEFORE_BLOCKS)
                scales[name] *= factor ** (count + 1 if before else 1 if block is None else count - block)
        return scales

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
        """The optimizer over the trainable ones of these named parameters."""
        groups = self.groups(parameters)
        for group in groups:
            group["lr"] = group["peak_lr"]
        return torch.optim.AdamW(groups, lr=self.peak_lr, betas=self.betas, eps=self.eps, fused=True)


def within(name: str, path: str) -> bool:
    """Whether the dotted `name` is `path` or lies under it."""
    return name == path or name.startswith(path + ".")


def _block(name: str, path: str) -> int | None:
    """The number of the block below `path` that a parameter belongs to: the first number in its name."""
    numbers = [part for part in name.removeprefix(path).split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else None


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its peak times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name|entry` tensors, ready for safetensors."""
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for entry, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}|{entry}"] = torch.as_tensor(value).detach().contiguous()
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a fresh optimizer the state that `optimizer_tensors` read.

    Raises:
        ValueError: the tensors belong to other parameters.
    """
    left = dict(tensors)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for entry in _ENTRIES:
                value = left.pop(f"{name}|{entry}", None)
                if value is not None:
                    optimizer.state[parameter][entry] = value.to(parameter.device, copy=True)
    if left:
        raise ValueError(
            f"The saved optimizer has state for parameters that do not train here: {sorted(left)[:4]}. "
            f"Resume with the stage that wrote the save."
        )
