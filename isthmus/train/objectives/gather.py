"""Rows of all processes: with gradient for everyone's use of them, or without."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn import functional

from isthmus.features import Text

_APART: ContextVar[bool] = ContextVar("apart", default=False)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Every process for itself: nothing is gathered, so their batches may differ in number and size."""
    before = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(before)


def num_processes() -> int:
    """How many processes train together; 1 without a process group, or apart."""
    together = distributed.is_available() and distributed.is_initialized() and not _APART.get()
    return distributed.get_world_size() if together else 1


def process() -> int:
    """The number of this process."""
    return distributed.get_rank() if num_processes() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """The rows of every process, in order of the processes, without gradient. All have as many."""
    rows = rows.detach()
    if num_processes() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(num_processes())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_attached(rows: Float[Tensor, "rows *rest"]) -> Float[Tensor, "all *rest"]:
    """The rows of every process; each gets the gradient of all processes' use of its own."""
    if num_processes() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


def gather_text(text: Text) -> Text:
    """The texts of every process, padded to the longest of all."""
    if num_processes() == 1:
        return text
    longest = torch.tensor(text.ids.shape[1], device=text.ids.device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    missing = (0, int(longest) - text.ids.shape[1])
    mask = functional.pad(text.mask.to(torch.uint8), missing)
    return Text(ids=gather(functional.pad(text.ids, missing)), mask=gather(mask).bool())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.first, ctx.count = process() * len(rows), len(rows)
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total[ctx.first : ctx.first + ctx.count]
