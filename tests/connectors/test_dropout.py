"""Our dropout: torch's in all but the numbers that are drawn."""

import pytest
import torch
from torch import nn

from isthmus.connectors.dropout import Dropout, drop


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 2)])
def test_shapes_and_kinds_stay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.ones(shape, dtype=dtype)
    told = drop(values, 0.5)
    assert told.shape == values.shape
    assert told.dtype == dtype
    assert set(told.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_so_many_are_dropped_and_the_mean_is_kept(rate: float) -> None:
    torch.manual_seed(0)
    count = 1_000_000
    told = drop(torch.ones(count, dtype=torch.float64), rate)
    wide = 5 * (rate * (1 - rate) / count) ** 0.5
    assert float((told == 0).double().mean()) == pytest.approx(rate, abs=wide + 1 / 65_536)
    assert float(told.mean()) == pytest.approx(1.0, abs=wide / (1 - rate))
    # No value tells of its neighbours: pairs that share a drawn number, and pairs that do not.
    gone = (told == 0).double() - rate
    for apart in (1, 2, 3, 4):
        assert abs(float((gone[apart:] * gone[:-apart]).mean())) < 5 * rate * (1 - rate) / count**0.5


def test_the_gradient_passes_where_values_did() -> None:
    values = torch.randn(4, 33, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    told = drop(values, 0.25)
    slope = torch.randn_like(told)
    told.backward(slope)
    assert values.grad is not None
    kept = told != 0
    torch.testing.assert_close(values.grad, torch.where(kept, slope / 0.75, 0.0))
    assert 0 < int(kept.sum()) < kept.numel()


def test_seeds_repeat_and_go_on() -> None:
    values = torch.ones(1_000)
    torch.manual_seed(3)
    first, second = drop(values, 0.5), drop(values, 0.5)
    torch.manual_seed(3)
    assert torch.equal(drop(values, 0.5), first)
    assert not torch.equal(first, second)


def test_the_module_drops_in_training_alone() -> None:
    module, values = Dropout(0.5), torch.ones(1_000)
    assert isinstance(module, nn.Dropout)
    assert bool((module(values) == 0).any())
    assert module.eval()(values) is values
    assert Dropout(0.0)(values) is values
