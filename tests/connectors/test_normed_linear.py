"""Linear layers after one norm: values and gradients of the plain way, in every number format."""

import pytest
import torch
from torch import Tensor, nn

from isthmus.connectors.normed_linear import normed_linears


def parts(dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.LayerNorm, list[nn.Linear]]:
    torch.manual_seed(2)
    norm, layers = nn.LayerNorm(6), [nn.Linear(6, 4), nn.Linear(6, 3), nn.Linear(6, 2, bias=False)]
    for weight in (*norm.parameters(), *(one for layer in layers for one in layer.parameters())):
        nn.init.normal_(weight)
    with torch.no_grad():
        norm.weight[2] = 0.0
    return torch.randn(2, 5, 6, dtype=dtype), norm.to(dtype), [layer.to(dtype) for layer in layers]


def slopes(quick: bool, dtype: torch.dtype, *, autocast: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    tokens, norm, layers = parts(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        told = normed_linears(tokens, norm, layers) if quick else tuple(layer(norm(tokens)) for layer in layers)
    weights = [torch.randn(one.shape, generator=torch.Generator().manual_seed(5)).to(one.dtype) for one in told]
    torch.stack([(one * weight).sum().float() for one, weight in zip(told, weights, strict=True)]).sum().backward()
    learned = [*norm.parameters(), *(one for layer in layers for one in layer.parameters())]
    return list(told), [one.grad for one in learned if one.grad is not None]


def test_values_and_gradients_are_those_of_the_plain_way() -> None:
    plain, quick = slopes(False, torch.float64), slopes(True, torch.float64)
    assert len(plain[1]) == 7
    torch.testing.assert_close(quick, plain, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_as_near_as_the_plain_way(autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    wanted, plain, quick = (
        slopes(False, torch.float64)[1],
        slopes(False, dtype, autocast=autocast)[1],
        slopes(True, dtype, autocast=autocast)[1],
    )
    for right, usual, ours in zip(wanted, plain, quick, strict=True):
        assert ours.dtype == usual.dtype == dtype
        off = [float((one.double() - right).norm() / right.norm()) for one in (usual, ours)]
        assert off[1] < max(2 * off[0], 0.02)


def test_a_layer_that_nobody_asks_gets_a_gradient_of_zero() -> None:
    tokens, norm, layers = parts()
    normed_linears(tokens, norm, layers)[0].sum().backward()
    assert layers[1].weight.grad is not None
    assert not layers[1].weight.grad.any()
    assert tokens.grad is None


def test_tokens_that_learn_get_their_gradient() -> None:
    tokens, norm, layers = parts()
    torch.stack([one.sum() for one in normed_linears(tokens.requires_grad_(), norm, layers)]).sum().backward()
    ours, tokens.grad = tokens.grad, None
    torch.stack([layer(norm(tokens)).sum() for layer in layers]).sum().backward()
    torch.testing.assert_close(ours, tokens.grad)
