"""The one door through which something is added to a decoder layer's input.

Permanent forward pre-hooks on the decoder layers call the addition that is set, if any. The addition stays until it is
replaced, so that activation checkpointing may run a layer again in the backward pass. Two users: visual tokens added in
later layers (DeepStack, arXiv:2406.04334; Qwen3-VL), and gated cross-attention (Flamingo, arXiv:2204.14198).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache


@dataclass(frozen=True)
class LayerState:
    """Where a layer's input lies: positions already in the key-value cache, and generated rows per row of the batch."""

    offset: int
    repeats: int


@runtime_checkable
class LayerAddition(Protocol):
    """Changes the input of a decoder layer; returns it unchanged for layers that it leaves alone."""

    def __call__(
        self, hidden: Float[Tensor, "rows length width"], layer: int, state: LayerState
    ) -> Float[Tensor, "rows length width"]:
        """[rows * repeats, positions from `state.offset` on, hidden width] -> the same shape."""
        ...


@dataclass(frozen=True, kw_only=True)
class AddVisual:
    """Adds `deeper[k]` at the visual positions of the input of layer `layers[k]` (DeepStack, section 3.1).

    `visual` marks the positions in the padded batch; `deeper[k]` is packed in row-major order of those marks.
    """

    visual: Bool[Tensor, "rows length"]
    deeper: tuple[Float[Tensor, "total width"], ...]
    layers: tuple[int, ...]

    def __call__(
        self, hidden: Float[Tensor, "rows length width"], layer: int, state: LayerState
    ) -> Float[Tensor, "rows length width"]:
        """`hidden` with this layer's tokens added; positions outside the prompt are left alone."""
        for values, where in zip(self.deeper, self.layers, strict=True):
            if where == layer:
                hidden = self._add(hidden, values, state)
        return hidden

    def _add(
        self, hidden: Float[Tensor, "rows length width"], values: Float[Tensor, "total width"], state: LayerState
    ) -> Float[Tensor, "rows length width"]:
        stop = min(state.offset + hidden.shape[1], self.visual.shape[1])
        if state.offset >= stop:
            return hidden
        packed: Int[Tensor, "total 2"] = self.visual.nonzero()
        inside = (packed[:, 1] >= state.offset) & (packed[:, 1] < stop)
        rows, columns = packed[inside].unbind(1)
        if rows.numel() == 0:
            return hidden
        added = torch.zeros(self.visual.shape[0], *hidden.shape[1:], dtype=hidden.dtype, device=hidden.device)
        added = added.index_put((rows, columns - state.offset), values[inside].to(hidden.dtype))
        return hidden + added.repeat_interleave(state.repeats, dim=0)


@dataclass(frozen=True)
class Additions:
    """Several additions, one after another."""

    parts: tuple[LayerAddition, ...]

    def __call__(
        self, hidden: Float[Tensor, "rows length width"], layer: int, state: LayerState
    ) -> Float[Tensor, "rows length width"]:
        """`hidden` after each of them."""
        for part in self.parts:
            hidden = part(hidden, layer, state)
        return hidden


def join_additions(parts: Sequence[LayerAddition]) -> LayerAddition | None:
    """One addition that makes all of these, in order; `None` when there are none."""
    if len(parts) < 2:
        return next(iter(parts), None)
    return Additions(tuple(parts))


class AdditionDoor:
    """Holds the addition of the current batch and hooks it into the decoder layers of one language model."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.num_layers = len(layers)
        self._addition: LayerAddition | None = None
        self._rows = 0
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._before, index), with_kwargs=True)

    def open(self, addition: LayerAddition | None, rows: int) -> None:
        """Set what is added from now on (`None`: nothing) for a batch of `rows` rows, until the next call."""
        self._addition = addition
        self._rows = rows

    def _before(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._addition is None:
            return None
        by_name = "hidden_states" in kwargs
        hidden = kwargs["hidden_states"] if by_name else args[0]
        # Families name the cache differently, and GPT-2 hands it over by position.
        cache = next((value for value in (*kwargs.values(), *args) if isinstance(value, Cache)), None)
        offset = 0 if cache is None else int(cache.get_seq_length(index))
        repeats, rest = divmod(hidden.shape[0], self._rows)
        assert rest == 0, f"{hidden.shape[0]} rows reached layer {index} for a batch of {self._rows}"
        changed = self._addition(hidden, index, LayerState(offset, repeats))
        if by_name:
            return args, {**kwargs, "hidden_states": changed}
        return (changed, *args[1:]), kwargs


def find_layers(model: nn.Module, num_layers: int) -> nn.ModuleList:
    """The decoder's layers: the one outermost `ModuleList` of this length.

    Raises:
        ValueError: no such list.
    """
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of {num_layers} layers, so nothing can be added to its layers."
    )
