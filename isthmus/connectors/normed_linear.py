"""Linear layers after one LayerNorm, with a cheaper backward pass where the features need no gradient.

The norm's own gradients usually come from that of its output: one more matrix product, as large as each layer's. They
can be had from the products that the layers' weights need anyway: with S = dY^T x, x the features before weight and
bias of the norm, dW is S times the norm's weight plus (sum dY) times its bias, and the norm's dweight is the sum of S W
over outputs. Keys and values of cross-attention are such layers: BLIP-2's Q-Former is spared a fifth of the FLOPs of
training on one image, Flamingo's resampler a seventh.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isthmus.connectors.rounding import rounded


def standardised(tokens: Tensor, norm: nn.LayerNorm) -> Tensor | None:
    """Features that need no gradient, before gain and shift; norms of one epsilon share them. `None` for others."""
    if tokens.requires_grad or not torch.is_grad_enabled():
        return None
    return nn.functional.layer_norm(tokens, norm.normalized_shape, None, None, norm.eps)


def normed_linears(
    tokens: Tensor, norm: nn.LayerNorm, layers: list[nn.Linear], *, plain: Tensor | None = None
) -> tuple[Tensor, ...]:
    """`layer(norm(tokens))` of each layer; `plain` is `standardised(tokens, norm)`, where it is there already."""
    plain = standardised(tokens, norm) if plain is None else plain
    if plain is None:
        seen = norm(tokens)
        return tuple(layer(seen) for layer in layers)
    weights = [part for layer in layers for part in (layer.weight, layer.bias)]
    told: tuple[Tensor, ...] = _NormedLinears.apply(plain, norm.weight, norm.bias, *weights)  # type: ignore[no-untyped-call]
    return told


class _NormedLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: Tensor, gain: Tensor, shift: Tensor, *weights: Any) -> tuple[Tensor, ...]:
        ctx.save_for_backward(plain, gain, shift, *weights[::2])
        ctx.biased = [bias is not None for bias in weights[1::2]]
        seen = rounded(torch.addcmul(shift, plain, gain))
        return tuple(
            nn.functional.linear(seen, weight, bias) for weight, bias in zip(weights[::2], weights[1::2], strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plain, gain, shift, *weights = ctx.saved_tensors
        exact = torch.promote_types(gain.dtype, torch.float32)
        flat = plain.flatten(0, -2)
        gained, shifted = torch.zeros_like(gain, dtype=exact), torch.zeros_like(shift, dtype=exact)
        rounded = {kind: flat.to(kind) for kind in {gradient.dtype for gradient in gradients}}
        told: list[Tensor | None] = []
        for gradient, weight, biased in zip(gradients, weights, ctx.biased, strict=True):
            given = gradient.flatten(0, -2)
            total = given.sum(dim=0, dtype=exact)
            seen = given.T @ rounded[given.dtype]
            seen = seen if seen.dtype == weight.dtype else seen.to(exact)
            gained += (seen * weight).sum(dim=0, dtype=exact)
            shifted += total.to(weight.dtype) @ weight
            slope = torch.addmm(seen.mul_(gain), total.to(seen.dtype)[:, None], shift[None].to(seen.dtype))
            told += [slope.to(weight.dtype), total.to(weight.dtype) if biased else None]
        return None, gained.to(gain.dtype), shifted.to(shift.dtype), *told
