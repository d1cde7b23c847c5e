"""DeepStack's groups, literal and refused; levels of a connector to layers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isthmus.config import from_json, to_json
from isthmus.connectors import MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import ARRANGEMENTS, Anyres, ChannelStack, Concatenate, DeepStack, Levels
from isthmus.connectors.arrange.deepstack import group_views
from isthmus.connectors.qwen3vl_mergers import Qwen3VlConfig
from isthmus.features import FeatureShape, Grid, LLMShape, Plan, VisualTokens

TARGET = LLMShape(embedding_width=1, hidden_width=1, num_layers=6)
SOURCE = FeatureShape(width=8, grid=Grid(1, 4, 4))


def plan(views: int, rows: int, columns: int, whole: str = "first", start: int = 0) -> Plan:
    return Plan(
        size=(10, 10),
        tiles=Grid(1, rows, columns),
        views=range(start, start + views),
        whole=whole,
        tokens=Grid(1, 1, 1) if views > 9 else Grid(1, 2, 2),
    )


def values(views: int, tokens: int = 4) -> VisualTokens:
    """Token number i of view number v is 10 v + i."""
    return VisualTokens((torch.arange(views)[:, None] * 10.0 + torch.arange(tokens))[..., None])


def groups(config: DeepStack, visual: VisualTokens, *plans: Plan) -> list[list[float]]:
    return [group[:, 0].tolist() for group in config.build(TARGET)(visual, plans).deeper]


def test_dilated_groups_span_the_image_and_the_rest_are_zeros() -> None:
    placed = DeepStack(groups=3).build(TARGET)(values(3), (plan(3, 1, 2),))
    assert placed.tokens[:, 0].tolist() == [0, 1, 2, 3]
    assert [group[:, 0].tolist() for group in placed.deeper] == [[10, 20, 12, 22], [11, 21, 13, 23], [0, 0, 0, 0]]
    assert placed.layers == (1, 2, 3)


def test_the_other_ways_to_sample() -> None:
    wide = plan(3, 1, 2)
    assert groups(DeepStack(groups=2, sampling="grid"), values(3), wide) == [[10, 11, 12, 13], [20, 21, 22, 23]]
    assert groups(DeepStack(groups=2, sampling="1d"), values(3), wide) == [[10, 20, 12, 22], [11, 21, 13, 23]]
    assert groups(DeepStack(groups=2, sampling="repeat"), values(3), wide) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_the_whole_may_come_last_and_an_image_may_have_no_tiles() -> None:
    visual = values(4)
    two = (plan(1, 1, 1, "none"), plan(3, 2, 1, "last", start=1))
    placed = DeepStack(groups=2, start_layer=0, interval=3).build(TARGET)(visual, two)
    assert placed.lengths == (4, 4)
    assert placed.tokens[:, 0].tolist() == [0, 1, 2, 3, 30, 31, 32, 33]
    assert [group[:4, 0].tolist() for group in placed.deeper] == [[0] * 4, [0] * 4]
    assert [group[4:, 0].tolist() for group in placed.deeper] == [[10, 11, 20, 21], [12, 13, 22, 23]]
    assert placed.layers == (0, 3)


@pytest.mark.parametrize("config", [DeepStack(groups=4), DeepStack(groups=4, every_view=True), ChannelStack()])
def test_frames_of_a_clip_have_no_crops(config: DeepStack | ChannelStack) -> None:
    clip = Plan(size=(10, 10), tiles=Grid(3, 1, 1), views=range(1, 4), tokens=Grid(1, 2, 2))
    both = (plan(1, 1, 1, "none"), clip) if not getattr(config, "every_view", False) else (clip,)
    stack = config if isinstance(config, DeepStack) else config.stack
    coarse, groups, laid = group_views(values(4).tokens, both, stack)
    assert coarse[-3:].flatten().tolist() == [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33]
    assert len(groups) == 4
    assert not any(bool(group.any()) for group in groups)
    assert (laid[-1].tiles, len(laid[-1].views), config.num_tokens(clip, 4)) == (Grid(3, 1, 1), 3, 12)


def test_every_view_is_refined_by_its_own_crops() -> None:
    config = DeepStack(every_view=True, arrange=Anyres(unpad=False, newline=False))
    one = plan(15, 1, 2)
    assert config.num_tokens(one, 1) == 3
    placed = config.build(TARGET)(values(15, tokens=1), (one,))
    assert placed.tokens[:, 0].tolist() == [0, 10, 20]
    assert [group[:, 0].tolist() for group in placed.deeper] == [[30 + k, 70 + k, 110 + k] for k in (0, 10, 20, 30)]


def test_no_image_keeps_the_gradient_path() -> None:
    tokens = values(2).tokens.requires_grad_()
    placed = DeepStack().build(TARGET)(VisualTokens(tokens), ())
    assert placed.lengths == ()
    sum(part.sum() for part in (placed.tokens, *placed.deeper)).backward()
    assert tokens.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 x 2 tiles needs 7 views.*keeps the whole image"):
        DeepStack(groups=6).num_tokens(plan(6, 3, 2, "none"), 4)
    with pytest.raises(ValueError, match="4 tiles make 4 groups, but groups=2"):
        DeepStack(groups=2).num_tokens(plan(5, 2, 2), 4)
    with pytest.raises(ValueError, match="needs 15 views, but 3 came"):
        DeepStack(every_view=True).num_tokens(plan(3, 1, 2), 4)
    with pytest.raises(ValueError, match="groups=3 is no square"):
        DeepStack(every_view=True, groups=3)
    with pytest.raises(ValueError, match="at least 1 group"):
        DeepStack(interval=0)
    with pytest.raises(ValueError, match=r"before layers \(1, 3, 5, 7\).*6 layers \(0 to 5\)"):
        DeepStack(interval=2).build(TARGET)
    with pytest.raises(ValueError, match="cannot lay out through Levels"):
        DeepStack(arrange=Levels())


def test_a_connector_without_a_map_is_refused_unless_crops_are_groups() -> None:
    queries = QFormerConfig(num_queries=4, width=8, layers=1, heads=1, ffn_width=8)
    for connector in (queries, PixelShuffleConfig(order="v1")):
        with pytest.raises(ValueError, match=r"each needs a place in its crop.*sampling='grid'"):
            DeepStack().check(connector, SOURCE, TARGET)
        DeepStack(sampling="grid").check(connector, SOURCE, TARGET)
    DeepStack().check(MlpConfig(), SOURCE, TARGET)
    with pytest.raises(ValueError, match="2 levels for later layers"):
        DeepStack().check(Qwen3VlConfig(), FeatureShape(width=8, grid=Grid(1, 4, 4), level_widths=(8, 8)), TARGET)


def test_levels_go_to_their_layers() -> None:
    tokens = values(2).tokens
    config = Levels(layers=(0, 4), arrange=Anyres(unpad=False, newline=False))
    one = plan(2, 1, 1)
    placed = config.build(TARGET)(VisualTokens(tokens, levels=(tokens + 1, tokens + 2)), (one,))
    assert placed.layers == (0, 4)
    assert torch.equal(placed.deeper[1], placed.tokens + 2)
    assert config.num_tokens(one, 4) == 8 == len(placed.tokens)
    with pytest.raises(ValueError, match=r"names 2 layers, but the connector gives 1"):
        config.build(TARGET)(VisualTokens(tokens, levels=(tokens,)), (one,))
    with pytest.raises(ValueError, match=r"connector gives 0 levels.*Qwen3VlConfig"):
        config.check(MlpConfig(), SOURCE, TARGET)
    for layers in ((), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="one or more layers, counted from 0, each named once"):
            Levels(layers=layers)


def test_the_configs_read_back_from_json() -> None:
    types = {kind.__name__: kind for kind in ARRANGEMENTS.values()}
    for config in (DeepStack(every_view=True, arrange=Anyres()), Levels(layers=(0, 3)), Concatenate()):
        assert from_json(to_json(config), types) == config


def test_costs_of_the_published_configuration() -> None:
    """Five views through LLaVA-1.5's projector, 576 positions in the prompt, nothing to learn."""
    source, target = (
        FeatureShape(width=1_024, grid=Grid(1, 24, 24)),
        LLMShape(embedding_width=4_096, hidden_width=4_096, num_layers=32),
    )
    one = Plan(size=(672, 672), tiles=Grid(1, 2, 2), views=range(5), whole="first", tokens=Grid(1, 24, 24))
    assert 5 * MlpConfig().flops(source, target) == 120_795_955_200
    assert DeepStack().num_tokens(one, 576) == 576
    assert DeepStack().parameters(target) == 0
    assert DeepStack().added_before() == (1, 2, 3, 4)


def test_a_channel_stack_joins_what_deepstack_adds() -> None:
    config = ChannelStack(stack=DeepStack(groups=2, start_layer=99), depth=2)
    one, visual = plan(3, 1, 2), VisualTokens(torch.randn(3, 4, 1))
    config.check(MlpConfig(), SOURCE, TARGET)
    module = config.build(TARGET)
    with FlopCounterMode(display=False) as counter:
        placed = module(visual, (one,))
    assert counter.get_total_flops() == config.flops(one, 4, TARGET) == 2 * 4 * (3 + 1)
    assert sum(weight.numel() for weight in module.parameters()) == config.parameters(TARGET) == 4 + 2
    apart = DeepStack(groups=2).build(TARGET)(visual, (one,))
    by_hand = module.project(torch.cat([apart.tokens, *apart.deeper], dim=-1))
    torch.testing.assert_close(placed.tokens, by_hand)
    assert (placed.lengths, placed.deeper, placed.layers) == ((4,), (), ())
    with pytest.raises(ValueError, match="has no layer"):
        ChannelStack(depth=0)
