"""Gradient checkpointing: a layer's activations are computed again in the backward pass in place of being kept.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). Checked against: the same
stage without it, gradients equal (tests/train/test_recompute.py).

The layers' `forward` is wrapped and not their call, so the hooks through which something is added to a layer run once,
outside of what is computed again. `transformers` has a switch of its own, but it works in training mode alone: with a
frozen language model behind a connector that learns, which stays in evaluation mode, it would change nothing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from isthmus.model import VisionLanguageModel


def apply(model: VisionLanguageModel) -> int:
    """Recompute the layers of the language model if its config says `checkpointing=True`; returns how many those are.

    A vision tower that learns recomputes by itself, a few views at a time (`VisionEncoder.checkpointing`).

    Raises:
        ValueError: the language model has no list of layers.
    """
    llm = model.config.llm
    if llm is None or not llm.checkpointing:
        return 0
    model.llm.recomputes = True
    return _wrap(model.llm.model)


def _wrap(part: nn.Module) -> int:
    layers = [layer for stack in stacks(part) for layer in stack]
    if not layers:
        raise ValueError(
            f"checkpointing=True, but {type(part).__name__} has no list of layers to recompute. Leave it out."
        )
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)
    return len(layers)


def stacks(part: nn.Module) -> Iterator[nn.ModuleList]:
    """The outermost lists of modules of one class: a decoder's layers, both stacks of an encoder-decoder."""
    for child in part.children():
        if isinstance(child, nn.ModuleList) and len({type(layer) for layer in child}) == 1:
            yield child
        else:
            yield from stacks(child)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
