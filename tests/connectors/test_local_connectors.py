"""C- and D-Abstractor, LDP, LDPv2, TokenPacker and Honeybee's baselines: literal small cases, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

from isthmus.connectors import (
    CAbstractorConfig,
    Connector,
    ConnectorConfig,
    DAbstractorConfig,
    HoneybeeMlpConfig,
    HoneybeeResamplerConfig,
    LdpConfig,
    LdpV2Config,
    TokenPackerConfig,
)
from isthmus.connectors.c_abstractor import C_ABSTRACTOR_KEYS
from isthmus.connectors.d_abstractor import D_ABSTRACTOR_KEYS
from isthmus.connectors.deformable import DeformableAttention, reference_points, start_around
from isthmus.connectors.honeybee_mlp import HONEYBEE_MLP_KEYS, without_class_position
from isthmus.connectors.honeybee_resampler import HONEYBEE_RESAMPLER_KEYS
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.ldp import LDP_KEYS, squeezed
from isthmus.connectors.ldp_v2 import LDP_V2_KEYS
from isthmus.connectors.maps import Depthwise, pool
from isthmus.connectors.token_packer import TOKEN_PACKER_KEYS
from isthmus.features import Features, FeatureShape, Grid, LLMShape

TARGET = LLMShape(embedding_width=6, hidden_width=6, num_layers=1)
SMALL_D = {"width": 8, "layers": 1, "heads": 2, "ffn_width": 8}


def source(grid: Grid, width: int = 8, levels: tuple[int, ...] = ()) -> FeatureShape:
    return FeatureShape(width=width, grid=grid, level_widths=levels)


def build(config: ConnectorConfig, grid: Grid, levels: tuple[int, ...] = ()) -> Connector:
    torch.manual_seed(11)
    return config.build(source(grid, levels=levels), TARGET).eval()


def features(grid: Grid, width: int = 8) -> Features:
    generator = torch.Generator().manual_seed(4)
    return Features(tokens=torch.randn(1, grid.size, width, generator=generator), grid=grid)


@pytest.mark.parametrize(
    "config",
    [
        CAbstractorConfig(side=(2, 3), width=12, depth=1),
        DAbstractorConfig(side=(2, 3), **SMALL_D),
        HoneybeeMlpConfig(positions=True, prenorm=True),
        LdpConfig(),
        LdpV2Config(side=(2, 3)),
        TokenPackerConfig(width=8, heads=2),
    ],
)
def test_every_frame_is_taken_by_itself(config: ConnectorConfig) -> None:
    clip = features(Grid(3, 4, 6))
    connector = build(config, clip.grid)
    whole = connector(clip).tokens
    frames = [connector(Features(tokens=patches, grid=Grid(1, 4, 6))).tokens for patches in clip.tokens.chunk(3, dim=1)]
    torch.testing.assert_close(whole, torch.cat(frames, dim=1), atol=1e-6, rtol=1e-5)
    assert config.token_grid(clip.grid).size == whole.shape[1]
    assert config.token_grid(clip.grid).frames == 3


@pytest.mark.parametrize(
    "config",
    [
        CAbstractorConfig(side=2, width=12, depth=1),
        DAbstractorConfig(side=2, **SMALL_D),
        HoneybeeMlpConfig(positions=True),
        HoneybeeResamplerConfig(num_queries=3, width=8, layers=1, heads=2, ffn_width=8, positions=True),
    ],
)
def test_learned_positions_refuse_another_grid(config: ConnectorConfig) -> None:
    with pytest.raises(ValueError, match=r"4 x 6 grid it was built for, but a 6 x 4 grid came.*positions=False"):
        build(config, Grid(1, 4, 6))(features(Grid(1, 6, 4)))
    free = build(replace(config, positions=False), Grid(1, 4, 6))
    assert free(features(Grid(1, 6, 4))).tokens.shape[1] == config.num_tokens(Grid(1, 6, 4))


@pytest.mark.parametrize(
    "config",
    [
        CAbstractorConfig(side=2, width=12, depth=1, eos_tokens=2),
        DAbstractorConfig(side=2, **SMALL_D, eos_tokens=2),
        HoneybeeMlpConfig(eos_tokens=2),
        HoneybeeResamplerConfig(num_queries=3, width=8, layers=1, heads=2, ffn_width=8, eos_tokens=2),
    ],
)
def test_learned_tokens_come_last_and_are_the_same_for_every_view(config: ConnectorConfig) -> None:
    grid = Grid(2, 4, 4)
    connector = build(config, grid)
    generator = torch.Generator().manual_seed(2)
    batch = Features(tokens=torch.randn(2, grid.size, 8, generator=generator), grid=grid)
    tokens = connector(batch).tokens
    assert (
        tokens.shape[1]
        == config.num_tokens(grid)
        == build(replace(config, eos_tokens=0), grid)(batch).tokens.shape[1] + 2
    )
    assert torch.equal(tokens[0, -2:], tokens[1, -2:])
    assert not torch.allclose(tokens[0, -3], tokens[1, -3])
    assert config.token_grid(grid).size == tokens.shape[1]
    own = sum(weight.numel() for weight in connector.parameters())
    assert own == config.parameters(source(grid), TARGET)


def test_pooling_to_the_same_size_to_a_divisor_and_to_overlapping_bins() -> None:
    maps = torch.arange(8.0).reshape(1, 2, 4, 1)
    assert pool(maps, 2, 4) is maps
    assert pool(maps, 1, 2).flatten().tolist() == [2.5, 4.5]
    assert pool(maps, 1, 3).flatten().tolist() == [2.5, 3.5, 4.5]  # columns [0, 2), [1, 3), [2, 4)
    assert pool(maps, 4, 4).flatten(0, 2)[:8].flatten().tolist() == [0.0, 1.0, 2.0, 3.0] * 2  # rows repeat


def test_depthwise_looks_at_neighbours_of_its_own_channel() -> None:
    layer = Depthwise(2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 0] = 1.0  # the patch to the left
        layer.weight[1, 0, 0, 1] = 10.0  # the patch above
    maps = torch.arange(12.0).reshape(1, 2, 3, 2)
    given = layer(maps)
    assert given[..., 0].tolist() == [[[0.0, 0.0, 2.0], [0.0, 6.0, 8.0]]]
    assert given[..., 1].tolist() == [[[0.0, 0.0, 0.0], [10.0, 30.0, 50.0]]]


def test_c_abstractor_without_blocks_is_pooling_and_an_mlp() -> None:
    grid = Grid(1, 4, 4)
    connector = build(CAbstractorConfig(side=2, depth=0, positions=False), grid)
    connector.project = nn.Sequential(nn.Identity())
    values = torch.zeros(1, 16, 8)
    values[0, :, 0] = torch.arange(16.0)
    assert connector(Features(tokens=values, grid=grid)).tokens[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_the_class_position_of_older_checkpoints_is_dropped() -> None:
    older = {"pos_emb": torch.arange(5.0).reshape(1, 5, 1), "net.0.bias": torch.zeros(1)}
    assert without_class_position(older, 4)["pos_emb"].flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    assert without_class_position(older, 5)["pos_emb"].shape == (1, 5, 1)
    assert without_class_position({}, 4) == {}


def test_reference_points_run_from_the_first_patch_centre_to_the_last() -> None:
    assert reference_points((2, 4), 2, 2).tolist() == [[[0.125, 0.25], [0.875, 0.25], [0.125, 0.75], [0.875, 0.75]]]


def looking(offset: tuple[float, float]) -> Tensor:
    """What a query at the second patch of the first row finds, on a 2 x 3 map that counts from 1."""
    attention = DeformableAttention(1, heads=1, points=1, levels=1)
    start_around(attention)
    with torch.no_grad():
        attention.offsets.bias.copy_(torch.tensor(offset))
        for part in (attention.value, attention.out):
            part.weight.fill_(1.0)
    return attention(torch.zeros(1, 1, 1), [torch.arange(1.0, 7.0).reshape(1, 2, 3, 1)], torch.tensor([[[0.5, 0.25]]]))


@pytest.mark.parametrize(
    ("offset", "found"),
    [((0.0, 0.0), 2.0), ((1.0, 0.0), 3.0), ((0.0, 1.0), 5.0), ((0.5, 0.0), 2.5), ((0.0, 0.5), 3.5), ((3.0, 0.0), 0.0)],
)
def test_deformable_offsets_are_in_patches_right_and_down(offset: tuple[float, float], found: float) -> None:
    assert looking(offset).item() == pytest.approx(found, abs=1e-5)


def test_deformable_attention_over_levels_is_that_of_transformers() -> None:
    torch.manual_seed(5)
    config = DeformableDetrConfig(d_model=16, num_feature_levels=2)
    public = DeformableDetrMultiscaleDeformableAttention(config, num_heads=2, n_points=3)
    ours = DeformableAttention(16, heads=2, points=3, levels=2)
    names = {
        "offsets": "sampling_offsets",
        "weights": "attention_weights",
        "value": "value_proj",
        "out": "output_proj",
    }
    for mine, theirs in names.items():
        public.get_submodule(theirs).load_state_dict(ours.get_submodule(mine).state_dict())
    queries, features = torch.randn(2, 5, 16), torch.randn(2, 2, 12, 16)
    references, shapes = torch.rand(1, 5, 2), [(3, 4), (3, 4)]
    given = ours(queries, [level.unflatten(1, (3, 4)) for level in features.unbind(1)], references)
    wanted, _ = public(
        hidden_states=queries,
        encoder_hidden_states=features.flatten(1, 2),
        reference_points=references[:, :, None].expand(2, -1, 2, -1),
        spatial_shapes=torch.tensor(shapes),
        spatial_shapes_list=shapes,
        level_start_index=torch.tensor([0, 12]),
    )
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def test_deformable_attention_starts_as_a_ring() -> None:
    attention = DeformableAttention(8, heads=4, points=2, levels=1)
    start_around(attention)
    ring = attention.offsets.bias.detach().reshape(4, 2, 2)
    expected = [[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]], [[-1.0, 0.0], [-2.0, 0.0]], [[0, -1.0], [0, -2.0]]]
    torch.testing.assert_close(ring, torch.tensor(expected), atol=1e-6, rtol=0)
    assert not bool(attention.weights.weight.any())


def test_d_abstractor_reads_several_layers_when_nothing_is_pooled() -> None:
    grid = Grid(1, 4, 4)
    with pytest.raises(ValueError, match="gives 2 layers, but DAbstractorConfig reads one"):
        build(DAbstractorConfig(side=2, **SMALL_D), grid, levels=(5,))
    config = DAbstractorConfig(side=2, **SMALL_D, pooled="none")
    connector = build(config, grid, levels=(5,))
    given = features(grid)
    seen = [Features(tokens=given.tokens, grid=grid, levels=(torch.full((1, 16, 5), fill),)) for fill in (0.0, 1.0)]
    assert not torch.allclose(connector(seen[0]).tokens, connector(seen[1]).tokens)
    assert sum(one.numel() for one in connector.parameters()) == config.parameters(source(grid, levels=(5,)), TARGET)


@pytest.mark.parametrize(("width", "inner"), [(16, 8), (28, 8), (76, 24), (100, 24), (2_048, 512), (4_096, 1_024)])
def test_ldp_squeezes_to_a_multiple_of_eight(width: int, inner: int) -> None:
    assert squeezed(width) == inner


def test_ldp_rounds_odd_sides_up() -> None:
    grid = Grid(1, 5, 6)
    assert build(LdpConfig(), grid)(features(grid)).tokens.shape[1] == LdpConfig().num_tokens(grid) == 9


@pytest.mark.parametrize(("factor", "points"), [(1, list(range(36))), (2, [3.5, 5.5]), (3, [7.0, 10.0]), (6, [17.5])])
def test_points_are_the_middle_of_their_region(factor: int, points: list[float]) -> None:
    grid = Grid(1, 6, 6)
    connector = TokenPackerConfig(factor=factor, width=4, heads=2).build(source(grid, width=1), TARGET)
    given = connector.point_grid(Features(tokens=torch.arange(36.0).reshape(1, 36, 1), grid=grid))
    assert given.shape == (1, 36 // factor**2, 1)
    assert given.flatten().tolist()[: len(points)] == points


def test_a_patch_reaches_the_token_of_its_region_alone() -> None:
    grid = Grid(1, 4, 6)
    connector, given = build(TokenPackerConfig(factor=2, width=8, heads=2), grid), features(grid)
    before = connector(given).tokens
    changed = given.tokens.clone()
    changed[0, 3 * 6 + 2] += 1.0  # row 3, column 2: the region in row 1, column 1
    after = connector(Features(tokens=changed, grid=grid)).tokens
    assert [bool((before[0, place] != after[0, place]).any()) for place in range(6)] == [False] * 4 + [True, False]


def test_token_packer_refuses_other_grids_and_layers() -> None:
    with pytest.raises(ValueError, match=r"factor=3\) cannot divide a 4 x 6 patch grid.*multiples of 3.*CAbstractor"):
        build(TokenPackerConfig(factor=3), Grid(1, 4, 6))
    grid = Grid(1, 4, 6)
    connector = build(TokenPackerConfig(width=8, heads=2), grid, levels=(8, 5))
    with pytest.raises(ValueError, match=r"layers of widths \(8, 5\), but \(\) came.*encoder\.shape\(\)"):
        connector(features(grid))


OFFICIAL = [
    (CAbstractorConfig(side=2, width=12, depth=2, prenorm=True, eos_tokens=1), C_ABSTRACTOR_KEYS, 63),
    (DAbstractorConfig(side=2, **SMALL_D, eos_tokens=1), D_ABSTRACTOR_KEYS, 32),
    (HoneybeeMlpConfig(prenorm=True, positions=True, eos_tokens=1), HONEYBEE_MLP_KEYS, 8),
    (
        HoneybeeResamplerConfig(num_queries=3, width=8, layers=1, heads=2, ffn_width=8, eos_tokens=1),
        HONEYBEE_RESAMPLER_KEYS,
        28,
    ),
    (LdpConfig(), LDP_KEYS, 24),
    (LdpV2Config(side=2), LDP_V2_KEYS, 6),
    (TokenPackerConfig(width=8, heads=2), TOKEN_PACKER_KEYS, 23),
]


@pytest.mark.parametrize(("config", "keys", "count"), OFFICIAL)
def test_official_weights_go_out_and_come_back(config: ConnectorConfig, keys: KeyMap, count: int) -> None:
    grid = Grid(1, 4, 4)
    first, second = config.build(source(grid), TARGET).eval(), config.build(source(grid), TARGET).eval()
    official = keys.to_official(first.state_dict())
    assert len(official) == count
    load_official(second, keys, official, "the test")
    assert torch.equal(first(features(grid)).tokens, second(features(grid)).tokens)


@pytest.mark.parametrize(("config", "keys", "count"), OFFICIAL)
def test_official_weights_that_do_not_fit_are_refused_by_name(
    config: ConnectorConfig, keys: KeyMap, count: int
) -> None:
    connector = config.build(source(Grid(1, 4, 4)), TARGET)
    official = keys.to_official(connector.state_dict())
    gone, torn = sorted(official)[0], sorted(official)[-1]
    spoilt = {key: value for key, value in official.items() if key != gone}
    spoilt |= {"stranger.weight": torch.zeros(1), torn: torch.zeros(3, 1, 7)}
    with pytest.raises(ValueError, match="do not fit") as refused:
        load_official(connector, keys, spoilt, "the test")
    told = str(refused.value)
    assert f"1 missing: {gone}" in told
    assert "1 unknown: stranger.weight" in told
    assert f"1 of another shape: {torn} is (3, 1, 7)" in told


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (CAbstractorConfig, {"side": 0}, "leaves no token"),
        (CAbstractorConfig, {"depth": -1}, "depth=-1"),
        (CAbstractorConfig, {"mlp_depth": 0}, "has no layer"),
        (CAbstractorConfig, {"eos_tokens": -1}, "eos_tokens=-1"),
        (DAbstractorConfig, {"side": (3, 0)}, "leaves no token"),
        (DAbstractorConfig, {"heads": 5}, "width=1024.*heads=5"),
        (DAbstractorConfig, {"points": 0}, "points=0"),
        (DAbstractorConfig, {"dropout": 1.0}, "dropout=1.0"),
        (HoneybeeMlpConfig, {"depth": 0}, "has no layer"),
        (HoneybeeResamplerConfig, {"heads": 5}, "width=1024.*heads=5"),
        (HoneybeeResamplerConfig, {"layers": 0}, "layers=0"),
        (HoneybeeResamplerConfig, {"dropout": -0.1}, "dropout=-0.1"),
        (LdpV2Config, {"side": 0}, "leaves no token"),
        (TokenPackerConfig, {"factor": 0}, "factor=0"),
        (TokenPackerConfig, {"heads": 3}, "width=1024.*heads=3"),
    ],
)
def test_impossible_choices_are_refused(config: type[ConnectorConfig], change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**change)
