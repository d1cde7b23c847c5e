"""Packed text, grouped rows and keys of fixed features give what the plain way gives."""

import pytest
import torch

from isthmus.connectors import QFormerConfig
from isthmus.connectors.packing import Groups, Packing
from isthmus.features import Features, FeatureShape, Grid, Text

SOURCE = FeatureShape(width=6, grid=Grid(1, 1, 5))
CONFIG = QFormerConfig(
    num_queries=2, width=8, layers=3, heads=2, ffn_width=12, dropout=0.0, text=True, vocabulary=20, positions=8,
    embedding=4,
)  # fmt: skip


def test_packing_keeps_real_tokens_in_order() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    packing = Packing.of(mask)
    padded = torch.arange(6.0).view(2, 3, 1)
    assert packing.pack(padded).flatten().tolist() == [0, 1, 3]
    assert packing.unpack(packing.pack(padded)).flatten().tolist() == [0, 1, 0, 3, 0, 0]
    assert Packing.of(torch.ones(2, 3, dtype=torch.bool)) is None


def test_groups_put_rows_of_one_image_side_by_side() -> None:
    groups = Groups.of(torch.tensor([1, 0, 1, 2]), 3)
    assert groups.rows.tolist() == [[1, 0], [0, 2], [3, 0]]
    rows = torch.arange(8.0).view(4, 2, 1)
    gathered = groups.gather(rows)
    assert gathered[1].flatten().tolist() == [0, 1, 4, 5]
    assert torch.equal(groups.scatter(gathered), rows)
    assert Groups.of(torch.tensor([0, 0, 0, 0, 1]), 3) is None  # 3 x 4 places for 5 rows


@pytest.mark.parametrize("pattern", ["uni-modal", "bidirectional", "causal"])
def test_packed_grouped_and_fixed_passes_are_equal_in_values_and_gradients(pattern: str) -> None:
    torch.manual_seed(3)
    module = CONFIG.build_alone(SOURCE).double().train()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    image = Features(tokens=torch.randn(2, 5, 6, dtype=torch.float64), grid=SOURCE.grid)
    lengths = torch.tensor([4, 2, 3])
    text = Text(ids=torch.randint(1, 20, (3, 4)), mask=torch.arange(4)[None] < lengths[:, None])
    direction = torch.randn(3, 4, 8, dtype=torch.float64)
    owner = None if pattern == "uni-modal" else [1, 0, 1]
    found = []
    for quick in (False, True):
        module.zero_grad()
        seen = module.look(image) if quick else module.look_at(module.norm_features(image), None)
        if not quick and owner is not None and pattern == "bidirectional":
            seen, reads = seen.chosen(torch.tensor(owner)), [0, 1, 2]
        else:
            reads = owner
        told = module.read(seen, text, mask=pattern, owner=reads, packed=quick)
        (told.text * direction)[text.mask].sum().backward(retain_graph=True)
        told.queries.square().sum().backward()
        slopes = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
        found.append((told.text[text.mask], told.queries, slopes))
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-11, rtol=1e-9)


def test_text_that_nobody_asks_for_is_not_told() -> None:
    module = CONFIG.build_alone(SOURCE).eval()
    image = Features(tokens=torch.randn(2, 5, 6), grid=SOURCE.grid)
    text = Text(ids=torch.randint(1, 20, (2, 3)), mask=torch.ones(2, 3, dtype=torch.bool))
    whole = module.read(image, text, mask="bidirectional")
    short = module.read(image, text, mask="bidirectional", told="none")
    assert short.text is None
    torch.testing.assert_close(short.queries, whole.queries)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pattern", ["uni-modal", "causal"])
def test_the_first_token_alone_is_told_as_among_all(pattern: str, packed: bool) -> None:
    torch.manual_seed(3)
    module = CONFIG.build_alone(SOURCE).double().train()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    image = Features(tokens=torch.randn(3, 5, 6, dtype=torch.float64), grid=SOURCE.grid)
    mask = torch.arange(4)[None] < torch.tensor([4, 1, 3])[:, None]
    text = Text(ids=torch.randint(1, 20, (3, 4)), mask=mask)
    found = []
    for told in ("all", "first"):
        module.zero_grad()
        first = module.read(image, text, mask=pattern, packed=packed, told=told).text[:, :1]
        assert first.shape == (3, 1, 8)
        (first.sin() * torch.arange(1.0, 9.0)).sum().backward()
        found.append((first, {name: one.grad for name, one in module.named_parameters() if one.grad is not None}))
    for plain, short in zip(*found, strict=True):
        torch.testing.assert_close(short, plain, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("lengths", [((4, 2, 3), (3, 1, 2)), ((4, 4, 4), (4, 4, 4)), ((3, 2), (1, 2))])
def test_texts_alone_and_written_by_one_pass_are_those_of_two(lengths: tuple[tuple[int, ...], ...]) -> None:
    torch.manual_seed(3)
    module = CONFIG.build_alone(SOURCE).double().train()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    rows = len(lengths[0])
    image = Features(tokens=torch.randn(rows, 5, 6, dtype=torch.float64), grid=SOURCE.grid)
    alone, write = (
        Text(ids=torch.randint(1, 20, (rows, 4)), mask=torch.arange(4)[None] < torch.tensor(some)[:, None])
        for some in lengths
    )
    found = []
    for together in (False, True):
        module.zero_grad()
        past = module.read(image, None, mask="uni-modal")
        if together:
            first, written = module.tell(alone, write, past)
        else:
            first = module.read(None, alone, mask="uni-modal", packed=True, told="first").text
            written = module.read(None, write, mask="causal", past=past, packed=True).text
        (first.sin().sum() + (written.cos() * torch.arange(8.0)).sum()).backward()
        slopes = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
        found.append((first, written, slopes))
    for apart, one in zip(*found, strict=True):
        torch.testing.assert_close(one, apart, atol=1e-11, rtol=1e-9)


def test_a_text_told_with_another_never_sees_it_nor_the_image() -> None:
    torch.manual_seed(3)
    module = CONFIG.build_alone(SOURCE).double().eval()
    tokens = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    ids, mask = torch.tensor([[3, 4, 5], [6, 7, 8]]), torch.tensor([[True, True, True], [True, True, False]])
    told = []
    for word in (9, 10):
        other = Text(ids=torch.full_like(ids, word), mask=mask)
        past = module.read(Features(tokens=tokens, grid=SOURCE.grid), None, mask="uni-modal")
        told.append(module.tell(Text(ids=ids, mask=mask), other, past))
    assert torch.equal(told[0][0], told[1][0])
    assert not torch.equal(told[0][1], told[1][1])
    slope = torch.autograd.grad(told[0][0].square().sum(), tokens, retain_graph=True, materialize_grads=True)[0]
    assert not bool(slope.any())
    assert bool(torch.autograd.grad(told[0][1].square().sum(), tokens)[0].any())


def test_what_is_told_together_is_refused_as_what_is_read() -> None:
    module = CONFIG.build_alone(SOURCE)
    text = Text(ids=torch.ones(2, 3, dtype=torch.long), mask=torch.ones(2, 3, dtype=torch.bool))
    past = module.read(Features(tokens=torch.randn(3, 5, 6), grid=SOURCE.grid), None, mask="uni-modal")
    with pytest.raises(ValueError, match="2 texts came with 3 feature rows"):
        module.tell(text, text, past)
    with pytest.raises(ValueError, match="A past reading"):
        module.tell(text, text, module.read(None, text, mask="uni-modal"))
