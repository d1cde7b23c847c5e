"""Signs of health by literal cases."""

import math

import pytest
import torch

from isthmus.connectors.qformer_layers import Attention
from isthmus.features import Features, Grid, Plan
from isthmus.measure.checkup import exchanged
from isthmus.measure.signs import LookingEntropy, effective_rank, gradient_norms, mean_cosine, part_of, share_distinct


def test_rank_and_cosine_of_literal_vectors() -> None:
    sets = torch.stack([torch.eye(4), torch.ones(4, 4)])
    torch.testing.assert_close(effective_rank(sets), torch.tensor([4.0, 1.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mean_cosine(sets), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)
    assert float(mean_cosine(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))) == pytest.approx(-1.0)
    assert float(mean_cosine(torch.ones(1, 3))) == 1.0
    assert share_distinct(sets).tolist() == [1.0, 0.25]


def test_parts_and_their_gradient_norms() -> None:
    names = {
        "connector.layers.3.cross.key.weight": "connector.cross",
        "connector.heads.match.bias": "connector.heads.match",
        "connector.queries": "connector.queries",
        "connector.project.0.weight": "connector.project",
        "llm.model.layers.2.mlp.weight": "llm",
    }
    assert {name: part_of(name) for name in names} == names
    three, four, still = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    three.grad, four.grad = torch.tensor([3.0]), torch.tensor([4.0])
    given = [("connector.cross.a", three), ("connector.layers.0.cross.b", four), ("llm.x", still)]
    assert gradient_norms(given) == {"connector.cross": pytest.approx(5.0), "llm": 0.0}


def test_entropy_of_looking_is_one_when_all_patches_are_alike() -> None:
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.cross = Attention(8, 8, heads=2, dropout=0.0)
    pair = (torch.zeros(2, 5, 8), torch.randn(2, 5, 8))
    with LookingEntropy(module) as looking:
        module.cross(torch.randn(2, 3, 8), pair, None)
    assert looking.value == pytest.approx(1.0)
    sharp = (torch.randn(2, 5, 8) * 1_000, pair[1])
    with LookingEntropy(module) as looking:
        module.cross(torch.randn(2, 3, 8), sharp, None)
    assert looking.value is not None
    assert looking.value < 0.2
    mask = torch.tensor([True, True, False, False, False]).expand(2, 1, 5)
    with LookingEntropy(module) as looking:
        module.cross(torch.randn(2, 3, 8), pair, mask)
    assert looking.value == pytest.approx(1.0)
    with LookingEntropy(module) as looking:
        pass
    assert looking.value is None


def test_images_are_exchanged_among_those_with_as_many_views() -> None:
    rows = torch.tensor([1.0, 2.0, 3.0, 1.0, 5.0, 5.0])[:, None, None].expand(6, 1, 2)
    features = Features(tokens=rows, grid=Grid(1, 1, 1))

    def plan(*views: int) -> Plan:
        return Plan(size=(8, 8), tiles=Grid(1, 1, 1), views=range(views[0], views[-1] + 1))

    places, moved = exchanged(features, [plan(0), plan(1, 2), plan(3), plan(4), plan(5)])
    assert places.tolist() == [4, 1, 2, 5, 0, 3]
    assert moved == [True, False, True, True, True]
    alike, still = exchanged(Features(tokens=rows[4:], grid=Grid(1, 1, 1)), [plan(0), plan(1)])
    assert still == [False, False]
    assert sorted(alike.tolist()) == [0, 1]
    assert not math.isnan(float(rows.sum()))
