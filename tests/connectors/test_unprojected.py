"""Cross-attention without keys and values gives what it gives with them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isthmus.connectors.attention import attend
from isthmus.connectors.qformer import QFormer, QFormerConfig
from isthmus.connectors.unprojected import Unprojected, attend_unprojected, pays
from isthmus.features import Features, FeatureShape, Grid, LLMShape

HEADS, WIDTH, CHANNELS = 2, 12, 10


def made() -> tuple[nn.LayerNorm, nn.Linear, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    norm = nn.LayerNorm(CHANNELS).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    key, value = (nn.Linear(CHANNELS, WIDTH).double() for _ in range(2))
    queries = torch.randn(3, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    features = torch.randn(3, 7, CHANNELS, dtype=torch.float64, requires_grad=True)
    return norm, key, value, queries, features


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_answers_and_gradients_are_those_of_keys_and_values(normed: bool, padded: bool) -> None:
    norm, key, value, queries, features = made()
    mask = None
    if padded:
        mask = (torch.arange(7) < torch.tensor([7, 3, 0])[:, None])[:, None]  # the last row has nothing to look at

    def plain() -> Tensor:
        seen = norm(features) if normed else features
        return attend(queries, key(seen), value(seen), heads=HEADS, mask=mask)

    def unprojected() -> Tensor:
        seen = Unprojected.of(features, norm if normed else None)
        return attend_unprojected(queries, seen, key, value, heads=HEADS, mask=mask)

    wanted, given = (answer_and_slopes(one, norm, key, value, queries, features) for one in (plain, unprojected))
    assert set(given) == set(wanted)
    for name, tensor in wanted.items():
        torch.testing.assert_close(given[name], tensor, atol=1e-12, rtol=1e-9, msg=name)


def answer_and_slopes(
    call: Callable[[], Tensor], norm: nn.LayerNorm, key: nn.Linear, value: nn.Linear, queries: Tensor, features: Tensor
) -> dict[str, Tensor]:
    answer = call()
    learnt = {"queries": queries, "features": features}
    for name, module in {"norm": norm, "key": key, "value": value}.items():
        learnt |= {f"{name}.{part}": weight for part, weight in module.named_parameters()}
    slope = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).view_as(answer)
    slopes = torch.autograd.grad((answer * slope).sum(), list(learnt.values()), allow_unused=True)
    told = {name: one for name, one in zip(learnt, slopes, strict=True) if one is not None}
    return told | {"answer": answer.detach()}


def test_dropout_leaves_the_bias_of_values_as_it_is_left_by_keys_and_values() -> None:
    norm, key, value, queries, features = made()
    seen = Unprojected.of(features, norm)
    torch.manual_seed(5)
    plain = attend(queries, key(seen.whole()), value(seen.whole()), heads=HEADS, dropout=0.4)
    torch.manual_seed(5)
    given = attend_unprojected(queries, seen, key, value, heads=HEADS, dropout=0.4)
    torch.testing.assert_close(given, plain)


def test_it_is_for_few_queries_where_gradients_are_taken() -> None:
    features = torch.zeros(1, 257, 1408)
    assert pays(features, queries=32, width=768, heads=12)
    assert not pays(features, queries=33, width=768, heads=12)
    assert not pays(features.to("meta"), queries=1, width=768, heads=12)
    with torch.no_grad():
        assert not pays(features, queries=1, width=768, heads=12)


@pytest.mark.parametrize("queries", [3, 4])
def test_a_q_former_learns_alike_in_training_and_tells_the_same_without_gradients(queries: int) -> None:
    """Three queries of heads eight wide are few, four as well; both ways of reading agree."""
    torch.manual_seed(1)
    config = QFormerConfig(num_queries=queries, width=16, layers=3, heads=2, ffn_width=24, dropout=0.0)
    source = FeatureShape(width=CHANNELS, grid=Grid(1, 2, 3), prefix=1)
    module = config.build(source, LLMShape(embedding_width=6, hidden_width=6, num_layers=1)).double()
    assert isinstance(module, QFormer)
    features = Features(tokens=torch.randn(2, 7, CHANNELS, dtype=torch.float64), grid=Grid(1, 2, 3), prefix=1)
    told = module(features).tokens
    told.square().sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())
    with torch.no_grad():
        torch.testing.assert_close(module(features).tokens, told.detach())
    looked = module.look(features)
    assert not any(isinstance(pair, Unprojected) for pair in looked.pairs)
    with torch.enable_grad():
        again = module.read(looked, None, mask="uni-modal").queries
    assert again is not None
    assert module.project is not None
    mine = {name: weight.grad for name, weight in module.named_parameters()}
    module.zero_grad()
    module.project(again).square().sum().backward()
    for name, weight in module.named_parameters():
        torch.testing.assert_close(mine[name], weight.grad, msg=name)
