"""Parameters and FLOPs of the published configurations, as exact integers."""

from dataclasses import replace

import pytest
import torch

from isthmus.connectors import (
    AudioQFormerConfig,
    AveragePoolConfig,
    CAbstractorConfig,
    ChannelConcatConfig,
    ConnectorConfig,
    HoneybeeResamplerConfig,
    InstructQFormerConfig,
    LdpV2Config,
    LinearConfig,
    MatryoshkaConfig,
    MlpConfig,
    PerceiverConfig,
    PixelShuffleConfig,
    QFormerConfig,
    QLlamaConfig,
    Qwen3VlConfig,
    QwenVlConfig,
    TokenPackerConfig,
    VideoQFormerConfig,
    WindowedQFormerConfig,
)
from isthmus.features import FeatureShape, Grid, LLMShape

SIGLIP_384 = FeatureShape(width=1_152, grid=Grid(1, 24, 24))
CLIP_336 = FeatureShape(width=1_024, grid=Grid(1, 24, 24))
CLIP_224 = FeatureShape(width=1_024, grid=Grid(1, 16, 16))
CLIP_224_CLASS = FeatureShape(width=1_024, grid=Grid(1, 16, 16), prefix=1)
EVA_G = FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=1)
INTERN_6B = FeatureShape(width=3_200, grid=Grid(1, 32, 32))
INTERN_300M = FeatureShape(width=1_024, grid=Grid(1, 32, 32))
CLIP_336_PACKED = FeatureShape(width=1_024, grid=Grid(1, 24, 24), level_widths=(1_024,) * 4)
BIGG_448 = FeatureShape(width=1_664, grid=Grid(1, 32, 32))


def llm(width: int) -> LLMShape:
    return LLMShape(embedding_width=width, hidden_width=width, num_layers=32)


@pytest.mark.parametrize(
    ("config", "source", "width", "parameters"),
    [
        (LinearConfig(), CLIP_224, 4_096, 4_198_400),
        (LinearConfig(), CLIP_224, 5_120, 5_248_000),
        (MlpConfig(), CLIP_336, 4_096, 20_979_712),
        (MlpConfig(), CLIP_336, 5_120, 31_467_520),
        (AveragePoolConfig(side=12), CLIP_336, 4_096, 20_979_712),
        (PixelShuffleConfig(), INTERN_6B, 6_144, 116_429_824),
        (PixelShuffleConfig(order="v1"), INTERN_6B, 7_168, 143_170_560),
        (PixelShuffleConfig(), INTERN_300M, 2_048, 12_595_200),
        (PerceiverConfig(project=False), CLIP_224, 1_024, 63_019_008),
        (QwenVlConfig(project=False), BIGG_448, 4_096, 75_005_952),
        (QwenVlConfig(), BIGG_448, 4_096, 75_005_952 + 16_785_408),
        (MatryoshkaConfig(), CLIP_336, 4_096, 4 * 1_049_600 + 6_144 + 262_144 + 4_194_304),
        (CAbstractorConfig(), CLIP_224, 4_096, 37_070_336),
        (CAbstractorConfig(), CLIP_336, 4_096, 37_398_016),
        (HoneybeeResamplerConfig(), CLIP_224, 4_096, 106_142_720),
        (HoneybeeResamplerConfig(num_queries=144), CLIP_224, 4_096, 106_224_640),
        (LdpV2Config(), CLIP_336, 2_048, 6_316_032),
        (ChannelConcatConfig(), CLIP_336, 4_096, 20_979_712),
        (Qwen3VlConfig(), SIGLIP_384, 4_096, 40_119_040),
        (Qwen3VlConfig(), replace(SIGLIP_384, level_widths=(1_152,) * 3), 4_096, 40_119_040 + 3 * 40_125_952),
        (TokenPackerConfig(), CLIP_336_PACKED, 4_096, 1_048_576 + 2 * 5_244_928 + 6_144 + 4_198_400 + 20_979_712),
    ],
)
def test_parameters(config: ConnectorConfig, source: FeatureShape, width: int, parameters: int) -> None:
    assert config.parameters(source, llm(width)) == parameters


@pytest.mark.parametrize(
    ("source", "width", "parameters"),
    [
        (EVA_G, 2_560, 107_130_880),
        (EVA_G, 4_096, 108_312_064),
        (EVA_G, 2_048, 106_737_152),
        (CLIP_224_CLASS, 2_560, 103_591_936),
        (CLIP_224_CLASS, 2_048, 103_198_208),
    ],
)
def test_qformer_parameters_of_the_paper(source: FeatureShape, width: int, parameters: int) -> None:
    """Table 2 of BLIP-2 leaves out ln_vision, two numbers a channel, which belongs to the connector here."""
    assert QFormerConfig().parameters(source, llm(width)) == parameters + 2 * source.width


def test_the_query_path_alone() -> None:
    """BLIP-2's 105M: blocks, queries and their norm, before the layer to the language model."""
    projection = 768 * 2_560 + 2_560
    assert QFormerConfig().parameters(EVA_G, llm(2_560)) - 2 * 1_408 - projection == 105_162_240
    assert QFormerConfig().stack_parameters(1_408) + 32 * 768 == 105_162_240


@pytest.mark.parametrize(("project", "parameters"), [(False, 76_054_528), (True, 92_839_936)])
def test_qwen_vl_with_its_fixed_table(project: bool, parameters: int) -> None:
    """The paper's 0.08B is 75.0M that learn, 76.1M with the table of positions, 92.8M with norm and matrix behind."""
    config = QwenVlConfig(project=project)
    table = config.num_tokens(BIGG_448.grid) * 4_096
    assert config.parameters(BIGG_448, llm(4_096)) + table == parameters
    with torch.device("meta"):
        built = config.build(BIGG_448, llm(4_096))
    assert sum(tensor.numel() for tensor in built.state_dict().values()) == parameters


@pytest.mark.parametrize(
    ("config", "source", "whole", "scaling"),
    [
        (QFormerConfig(), EVA_G, 12_949_192_704, 6_821_314_560),
        (QwenVlConfig(project=False), BIGG_448, 104_152_956_928, 86_973_087_744),
    ],
)
def test_the_share_of_the_flops_that_grows_with_the_patches(
    config: ConnectorConfig, source: FeatureShape, whole: int, scaling: int
) -> None:
    """Affine in the patches: what a row of them more costs, times the rows."""
    patches = source.prefix + source.grid.size
    longer = replace(source, grid=source.grid._replace(rows=source.grid.rows + 1))
    more = config.flops(longer, llm(4_096)) - config.flops(source, llm(4_096))
    assert config.flops(source, llm(4_096)) == whole
    assert more * patches == scaling * source.grid.columns


def test_qformer_text_side_is_its_feed_forwards_and_embeddings() -> None:
    alone, reading = QFormerConfig(), QFormerConfig(text=True)
    more = reading.parameters(EVA_G, llm(2_560)) - alone.parameters(EVA_G, llm(2_560))
    assert more == 56_687_616 + 23_441_664 + 393_216


@pytest.mark.parametrize(
    ("config", "source", "width", "tokens", "flops"),
    [
        (LinearConfig(), CLIP_224, 4_096, 256, 2_147_483_648),
        (MlpConfig(), CLIP_336, 4_096, 576, 24_159_191_040),
        (MlpConfig(), CLIP_336, 5_120, 576, 36_238_786_560),
        (AveragePoolConfig(side=12), CLIP_336, 4_096, 144, 6_039_797_760),
        (AveragePoolConfig(side=8), CLIP_336, 4_096, 64, 2_684_354_560),
        (PixelShuffleConfig(order="v1"), INTERN_6B, 7_168, 256, 73_282_879_488),
        (PixelShuffleConfig(), INTERN_6B, 6_144, 256, 59_592_671_232),
        (QFormerConfig(), EVA_G, 2_560, 32, 12_873_695_232),
        (CAbstractorConfig(), CLIP_224, 4_096, 144, 11_101_372_416),
        (CAbstractorConfig(), CLIP_336, 4_096, 144, 15_145_598_976),
        (CAbstractorConfig(side=16), CLIP_336, 4_096, 256, 21_258_698_752),
        (HoneybeeResamplerConfig(num_queries=144), CLIP_224, 4_096, 144, 38_593_888_256),
        (QFormerConfig(), EVA_G, 4_096, 32, 12_949_192_704),
        (QFormerConfig(), CLIP_224_CLASS, 2_560, 32, 11_054_678_016),
        (PerceiverConfig(project=False), CLIP_224, 1_024, 64, 11_525_947_392),
        (PerceiverConfig(project=False), CLIP_336, 1_024, 64, 15_804_137_472),
        (QwenVlConfig(project=False), BIGG_448, 4_096, 256, 104_152_956_928),
        (QwenVlConfig(), BIGG_448, 4_096, 256, 104_152_956_928 + 8_589_934_592),
    ],
)
def test_tokens_and_flops(config: ConnectorConfig, source: FeatureShape, width: int, tokens: int, flops: int) -> None:
    assert config.num_tokens(source.grid) == tokens
    assert config.flops(source, llm(width)) == flops


def test_the_whole_of_blip2s_first_stage() -> None:
    """Query and text side, ln_vision, the heads that compare, match and write: LAVIS counts so, the paper says 188M."""
    whole = QFormerConfig(text=True, embedding=256)
    projection = 768 * 2_560 + 2_560
    assert whole.parameters(EVA_G, llm(2_560)) - projection == 186_705_470
    with torch.device("meta"):
        alone = whole.build_alone(EVA_G)
    assert sum(weight.numel() for weight in alone.parameters()) == 186_705_470


def test_costs_are_linear_in_patches_where_every_patch_is_a_token() -> None:
    half = FeatureShape(width=1_024, grid=Grid(1, 12, 24))
    for config in (LinearConfig(), MlpConfig(), PixelShuffleConfig()):
        assert config.flops(CLIP_336, llm(4_096)) == 2 * config.flops(half, llm(4_096))
    pooled = AveragePoolConfig(side=8)
    assert pooled.flops(CLIP_336, llm(4_096)) == pooled.flops(half, llm(4_096))


def test_a_patch_more_costs_the_qformer_its_keys_and_values() -> None:
    one_more = FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=2)
    more = QFormerConfig().flops(one_more, llm(4_096)) - QFormerConfig().flops(EVA_G, llm(4_096))
    assert more == 26_542_080


@pytest.mark.parametrize(("layers", "every", "crosses"), [(12, 2, 6), (11, 2, 6), (1, 2, 1), (12, 1, 12), (5, 3, 2)])
def test_cross_attention_layers_round_up(layers: int, every: int, crosses: int) -> None:
    assert QFormerConfig(layers=layers, cross_every=every).num_cross == crosses


@pytest.mark.parametrize(
    "config", [QFormerConfig(text=True, embedding=256), QLlamaConfig(text=True)], ids=["q-former", "qllama"]
)
def test_the_text_side_and_its_heads_are_counted(config: ConnectorConfig) -> None:
    target = llm(2_560)
    with torch.device("meta"):
        built = config.build(EVA_G, target)
    assert sum(weight.numel() for weight in built.parameters()) == config.parameters(EVA_G, target)


def test_parameters_of_instructblip() -> None:
    """The Q-Former with its text side is 185.7M, all that learns before Vicuna-7B 188.8M."""
    config = InstructQFormerConfig()
    assert config.parameters(EVA_G, llm(4_096)) == 188_837_376
    assert config.qformer.stack_parameters(1_408) + 56_687_616 + 23_441_664 + 393_216 == 185_660_160


def test_a_token_of_instruction_costs_its_passage_through_the_qformer() -> None:
    config = InstructQFormerConfig()
    assert config.text_flops(32) == 12 * (
        8 * 32 * 768**2 + 4 * 32 * 32 * 768 + 4 * 32 * 64 * 768 + 4 * 32 * 768 * 3_072
    )
    assert config.flops(EVA_G, llm(4_096)) == 12_949_192_704 + config.text_flops(128)


def test_parameters_of_video_llama() -> None:
    """18.9M and 19.7M in the outer Q-Formers."""
    assert VideoQFormerConfig().video.stack_parameters(768) == 18_905_088
    assert AudioQFormerConfig().sizes.stack_parameters(1_024) == 19_691_520
    clip = FeatureShape(width=1_408, grid=Grid(8, 16, 16), prefix=8)
    frames = QFormerConfig().stack_flops(1_408, 257)
    assert frames == 12_747_866_112
    outer = VideoQFormerConfig().video.stack_flops(768, 8 * 32)
    assert VideoQFormerConfig().flops(clip, llm(4_096)) == 8 * frames + outer + 2 * 32 * 768 * 4_096


def test_parameters_of_a_granite_projector() -> None:
    """20.76M for SigLIP so400m before a language model of width 2560, four of eight tokens a side."""
    config = WindowedQFormerConfig(query_side=4, window_side=8)
    source = FeatureShape(width=1_152, grid=Grid(1, 24, 24))
    assert config.parameters(source, llm(2_560)) == 20_763_520
    assert config.num_tokens(source.grid) == 144
