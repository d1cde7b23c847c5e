"""Dropout whose masks are drawn sixteen bits a value on the CPU, where torch draws each value by itself.

torch draws a mask there with one random number and one comparison a value, on one core, which at BLIP-2's sizes is the
largest part of a training step after its matrix products. Here one 64-bit number serves four values, and the mask is
kept as bytes. The rate is rounded to the nearest of 1/65536, and values are scaled by the rate that is truly used, so
that their mean is kept exactly. On other devices this is torch's own.
"""

from typing import Any

import torch
from numpy import int16
from numpy.random import SFC64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

LEVELS = 1 << 16


def drop(values: Tensor, rate: float) -> Tensor:
    """`values` with a share `rate` of them set to zero and the others scaled by 1 / (1 - rate).

    `rate` is 0 or more and below 1, as every config checks.
    """
    if rate == 0.0:
        return values
    if values.device.type != "cpu":
        return functional.dropout(values, rate)
    dropped: Tensor = _Dropout.apply(values, round(rate * LEVELS))  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, values: Tensor) -> Tensor:
        """As it came when not in training."""
        return drop(values, self.p) if self.training else values


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, level: int) -> Tensor:
        kept = _kept(values, level)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - level)
        return _masked(values, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None


def _kept(values: Tensor, level: int) -> Tensor:
    """1 where a value stays, where its 16 bits are at least `level` of 65,536, else 0; as bytes.

    The bits are numpy's, by a seed from torch's generator: they come twice as fast.
    """
    count = values.numel()
    seed = int(torch.randint(2**63 - 1, ()))
    drawn = torch.from_numpy(SFC64(seed).random_raw((count + 3) // 4).view(int16))[:count]
    # Written as bytes: torch compares and converts those several times faster than truth values.
    kept = torch.empty(count, dtype=torch.uint8)
    return torch.ge(drawn, level - LEVELS // 2, out=kept).view(values.shape)


def _masked(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    return values * kept.to(values.dtype).mul_(scale)
