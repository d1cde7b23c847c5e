"""Gated cross-attention: closed gates, who sees which image, costs, and the names of OpenFlamingo's checkpoint."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import AveragePoolConfig, GatedCrossAttentionConfig, IdentityConfig, PerceiverConfig
from isthmus.connectors.gated_cross_attention import FLAMINGO_KEYS, GatedCrossAttention
from isthmus.connectors.key_map import load_official
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Placed
from isthmus.llms import LayerState

SOURCE = FeatureShape(width=6, grid=Grid(1, 2, 2))
TARGET = LLMShape(embedding_width=8, hidden_width=10, num_layers=4)
PLAIN = GatedCrossAttentionConfig(resampler=IdentityConfig(), heads=2, head_width=3)
START = LayerState(0, 1)


def opened(config: GatedCrossAttentionConfig = PLAIN) -> GatedCrossAttention:
    torch.manual_seed(0)
    connector = config.build(SOURCE, TARGET)
    for name, weight in connector.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(weight, 0.8)
    return connector


def look(connector: GatedCrossAttention, seen: list[list[int]], rows: tuple[int, ...], memory: Tensor, **how) -> Tensor:
    """Four rows of hidden states, after the block before layer 1."""
    placed = Placed(
        tokens=torch.zeros(len(rows), 8), lengths=(1,) * len(rows), memory=memory, owner=tuple(range(len(rows)))
    )
    addition = connector.addition(placed, torch.tensor(seen), rows)
    hidden = torch.randn(len(seen), len(seen[0]), 10, generator=torch.Generator().manual_seed(1))
    return addition(hidden, 1, how.get("state", START))


def images(count: int) -> Tensor:
    return torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(2))


SEEN = [[-1, 0, 0, 1, 1], [-1, -1, 2, 2, 2], [-1, -1, -1, -1, -1]]


def test_closed_gates_leave_the_language_model_as_it_was() -> None:
    connector = PLAIN.build(SOURCE, TARGET)
    hidden = torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(look(connector, SEEN, (0, 0, 1), images(3)), hidden)


@pytest.mark.parametrize(("see", "touched"), [("last", [3, 4]), ("all", [3, 4])])
def test_an_image_reaches_the_text_after_it_in_its_row_alone(see: str, touched: list[int]) -> None:
    connector = opened(GatedCrossAttentionConfig(resampler=IdentityConfig(), heads=2, head_width=3, see=see))
    memory = images(3)
    before = look(connector, SEEN, (0, 0, 1), memory)
    memory[1] += 1.0
    moved = (look(connector, SEEN, (0, 0, 1), memory) - before).abs().amax(dim=-1) > 1e-6
    # With "all", text before the first image sees the mean of the row's images, as in the released code.
    expected = [*([0] if see == "all" else []), *touched]
    assert moved[0].nonzero().flatten().tolist() == expected
    assert not moved[1:].any()


def test_only_the_last_image_is_seen_or_all_before() -> None:
    memory = images(3)
    changed = memory.clone()
    changed[0] += 1.0
    for see, still in (("last", [True, True]), ("all", [False, False])):
        connector = opened(GatedCrossAttentionConfig(resampler=IdentityConfig(), heads=2, head_width=3, see=see))
        one, two = (look(connector, SEEN, (0, 0, 1), each)[0, 3:] for each in (memory, changed))
        assert [torch.allclose(a, b, atol=1e-6) for a, b in zip(one, two, strict=True)] == still


def test_new_positions_see_the_last_image_and_beams_their_rows() -> None:
    connector = opened()
    placed = Placed(tokens=torch.zeros(3, 8), lengths=(1, 1, 1), memory=images(3), owner=(0, 1, 2))
    addition = connector.addition(placed, torch.tensor(SEEN), (0, 0, 1))
    hidden = torch.randn(6, 1, 10, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        beams = addition(hidden, 1, LayerState(9, 2))
        again = addition(hidden, 1, LayerState(9, 2))
    assert torch.equal(beams, again)
    for row in range(3):
        alone = connector.addition(placed, torch.tensor(SEEN), (0, 0, 1))
        both = [hidden[2 * row + beam : 2 * row + beam + 1].expand(3, -1, -1) for beam in range(2)]
        for beam, one in enumerate(both):
            torch.testing.assert_close(alone(one, 1, LayerState(9, 1))[row], beams[2 * row + beam])


def test_every_weight_of_the_blocks_learns_and_a_batch_without_images_touches_them() -> None:
    connector = opened(GatedCrossAttentionConfig(resampler=IdentityConfig(), heads=2, head_width=3, every=2))
    assert list(connector.blocks) == ["1", "3"]
    look(connector, SEEN, (0, 0, 1), images(3)).square().sum().backward()
    block = dict(connector.blocks["1"].named_parameters())
    assert [name for name, weight in block.items() if weight.grad is None or not weight.grad.any()] == []
    connector.zero_grad()
    blank = connector.addition(None, torch.full((2, 3), -1), ())
    hidden = torch.randn(2, 3, 10)
    said = blank(hidden, 1, START)
    said.sum().backward()
    assert [name for name, weight in block.items() if weight.grad is None] == []
    assert not block["pair.weight"].grad.any()
    assert torch.equal(blank(hidden, 0, START), hidden)


def test_costs_are_those_of_the_paper_and_of_the_counter() -> None:
    clip = FeatureShape(width=1_024, grid=Grid(1, 16, 16))
    llm = LLMShape(embedding_width=4_096, hidden_width=4_096, num_layers=32)
    config = GatedCrossAttentionConfig(every=4)
    assert config.num_tokens(clip.grid) == 1
    assert len(config.layers(llm)) == 8
    assert config.parameters(clip, llm) == 63_019_008 + 4_096 + 8 * 139_476_994
    assert config.flops(clip, llm) == 11_525_947_392
    connector = opened()
    with FlopCounterMode(display=False) as counter:
        look(connector, [[0, 0, 0, 0, 0]], (0,), images(1))
    assert 4 * counter.get_total_flops() == PLAIN.layer_flops(SOURCE, TARGET, views=1, positions=5)


def test_the_checkpoint_of_openflamingo_loads_strictly() -> None:
    config = GatedCrossAttentionConfig(
        resampler=PerceiverConfig(num_latents=3, layers=2, heads=2, head_width=3, project=False), every=2
    )
    connector, other = config.build(SOURCE, TARGET), config.build(SOURCE, TARGET)
    official = FLAMINGO_KEYS.to_official(connector.state_dict())
    assert len(official) == len(connector.state_dict())
    assert official["lang_encoder.gated_cross_attn_layers.3.attn.to_kv.weight"].shape == (1024, 6)
    assert official["perceiver.layers.1.0.to_q.weight"].shape == (6, 6)
    load_official(other, FLAMINGO_KEYS, official, "the checkpoint")
    batch = Features(tokens=torch.randn(2, 4, 6), grid=SOURCE.grid)
    assert torch.equal(other(batch).memory, connector(batch).memory)
    del official["perceiver.norm.bias"]
    with pytest.raises(ValueError, match=r"1 missing: perceiver\.norm\.bias"):
        load_official(other, FLAMINGO_KEYS, official, "the checkpoint")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"every=5\) finds no place among 4 layers. Use every=4"):
        GatedCrossAttentionConfig(every=5).build(SOURCE, TARGET)
    with pytest.raises(ValueError, match="cannot enter layers itself"):
        GatedCrossAttentionConfig(resampler=PLAIN)
    with pytest.raises(ValueError, match="width 6"):
        GatedCrossAttentionConfig(resampler=AveragePoolConfig(side=1)).build(SOURCE, TARGET)(
            Features(tokens=torch.zeros(1, 4, 5), grid=SOURCE.grid)
        )
