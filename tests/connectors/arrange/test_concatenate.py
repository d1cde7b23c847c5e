"""Concatenate, and what every arrangement in the list promises."""

import pytest
import torch

from isthmus.connectors.arrange import ARRANGEMENTS, Concatenate
from isthmus.features import Grid, LLMShape, Plan, VisualTokens

TARGET = LLMShape(embedding_width=4, hidden_width=4, num_layers=6)


def plan(start: int, stop: int) -> Plan:
    """Views of three tokens, one below the other."""
    return Plan(size=(30, 20), tiles=Grid(1, 1, stop - start), views=range(start, stop), tokens=Grid(1, 3, 1))


VISUAL = VisualTokens(torch.arange(4 * 3 * 4.0).reshape(4, 3, 4))


@pytest.mark.parametrize("name", list(ARRANGEMENTS))
def test_every_arrangement_gives_the_promised_tokens_and_parameters(name: str) -> None:
    config = ARRANGEMENTS[name]()
    tiled = Plan(size=(30, 20), tiles=Grid(1, 1, 2), views=range(1, 4), whole="first", tokens=Grid(1, 3, 1))
    plans = (plan(0, 1), tiled)
    module = config.build(TARGET)
    placed = module(VisualTokens(VISUAL.tokens, levels=(VISUAL.tokens,) * 3 if name == "levels" else ()), plans)
    assert all(len(deeper) == len(placed.tokens) for deeper in placed.deeper)
    assert placed.layers == config.added_before()
    assert len(placed.deeper) == len(placed.layers)
    assert placed.lengths == tuple(config.num_tokens(one, 3) for one in plans)
    assert placed.tokens.shape == (sum(placed.lengths), 4)
    assert sum(weight.numel() for weight in module.parameters()) == config.parameters(TARGET)


def test_views_follow_one_another_in_the_order_of_the_plans() -> None:
    placed = Concatenate().build(TARGET)(VISUAL, (plan(2, 4), plan(0, 1)))
    assert placed.lengths == (6, 3)
    assert torch.equal(placed.tokens, VISUAL.tokens[[2, 3, 0]].flatten(0, 1))


def test_no_inputs_give_no_tokens_but_keep_the_gradient_path() -> None:
    tokens = VISUAL.tokens.clone().requires_grad_()
    placed = Concatenate().build(TARGET)(VisualTokens(tokens), ())
    assert placed.tokens.shape == (0, 4)
    placed.tokens.sum().backward()
    assert tokens.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    module = Concatenate().build(TARGET)
    with pytest.raises(ValueError, match=r"range\(3, 5\), but 4 views came"):
        module(VISUAL, (plan(3, 5),))
    with pytest.raises(ValueError, match="levels for later layers"):
        module(VisualTokens(VISUAL.tokens, levels=(VISUAL.tokens,)), (plan(0, 4),))


def test_memory_goes_along_with_its_owners() -> None:
    placed = Concatenate().build(TARGET)(VisualTokens(VISUAL.tokens, memory=VISUAL.tokens), (plan(1, 2), plan(2, 4)))
    assert placed.memory is not None
    assert torch.equal(placed.memory, VISUAL.tokens[1:])
    assert placed.owner == (0, 1, 1)
