"""The sums of the literature's connectors term by term: each part of a module counted, not the total alone.

The integers were made by others twice, from closed forms and by counting rebuilt modules; one multiply-add is 2 FLOPs.
"""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import QFormerConfig, QwenVlConfig
from isthmus.connectors.qformer import QFormer
from isthmus.connectors.qformer_layers import QFormerLayer
from isthmus.features import Features, FeatureShape, Grid, LLMShape

VIT_G = FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=1)
VIT_L = FeatureShape(width=1_024, grid=Grid(1, 16, 16), prefix=1)
STAGE1 = QFormerConfig(text=True, embedding=256)


def llm(width: int) -> LLMShape:
    return LLMShape(embedding_width=width, hidden_width=width, num_layers=32)


def size(part: object) -> int:
    if isinstance(part, nn.Parameter):
        return part.numel()
    assert isinstance(part, nn.Module)
    return sum(weight.numel() for weight in part.parameters())


def qformer(config: QFormerConfig, source: FeatureShape) -> QFormer:
    with torch.device("meta"):
        return config.build_alone(source)


def test_a_layer_of_the_qformer() -> None:
    first = qformer(QFormerConfig(), VIT_G).layers[0]
    assert isinstance(first, QFormerLayer)
    assert first.cross is not None
    assert size(first.attention) == 2_363_904
    assert first.attention.query.weight.numel() == 589_824
    assert size(first.query_ffn) == 4_723_968
    assert size(first.cross) == 3_346_944
    assert [size(first.cross.query), size(first.cross.out)] == [590_592, 590_592]
    assert [size(first.cross.key), size(first.cross.value)] == [1_081_344 + 768, 1_081_344 + 768]
    narrow = qformer(QFormerConfig(), VIT_L).layers[0]
    assert isinstance(narrow, QFormerLayer)
    assert size(narrow.cross) == 2_757_120


def test_the_qformer_without_its_norm_of_features() -> None:
    made = qformer(QFormerConfig(), VIT_G)
    crossing = sum(size(layer.cross) for layer in made.layers if layer.cross is not None)
    assert crossing == 20_081_664
    assert size(made.layers) - crossing == 85_054_464
    assert size(made.norm) == 1_536
    assert size(made.queries) == 24_576
    whole = size(made.layers) + size(made.norm) + size(made.queries)
    assert whole == 105_162_240
    assert whole - size(made.queries) == 105_137_664
    assert size(made) == whole + size(made.ln_vision)
    assert size(made.ln_vision) == 2_816


@pytest.mark.parametrize(
    ("width", "matrix", "total"),
    [(2_560, 1_968_640, 107_130_880), (4_096, 3_149_824, 108_312_064), (2_048, 1_574_912, 106_737_152)],
)
def test_the_qformers_matrix_to_the_language_model(width: int, matrix: int, total: int) -> None:
    with torch.device("meta"):
        made = QFormerConfig().build(VIT_G, llm(width))
    assert size(made.project) == matrix
    assert size(made) - size(made.ln_vision) == total


def test_what_stage_1_adds() -> None:
    made = qformer(STAGE1, VIT_G)
    heads = made.heads
    assert heads is not None
    assert sum(size(layer.text_ffn) for layer in made.layers) == 56_687_616
    assert size(made.words) == 23_441_664
    assert size(made.positions) == 393_216
    assert size(heads.transform) + size(heads.norm) == 592_128
    assert size(heads.bias) == 30_523
    assert size(heads.image) + size(heads.text) == 393_728
    assert size(heads.match) == 1_538
    assert size(heads.temperature) == 1
    assert size(made) == 186_705_470
    assert size(made) + 1_574_912 == 188_280_382


def test_the_qwen_vl_adapter() -> None:
    with torch.device("meta"):
        made = QwenVlConfig().build(FeatureShape(width=1_664, grid=Grid(1, 32, 32)), llm(4_096))
    assert size(made.widen) == 6_815_744
    assert size(made.attention) == 67_125_248
    assert size(made.norm_queries) + size(made.norm_patches) == 16_384
    assert size(made.queries) == 1_048_576
    assert size(made.norm) + size(made.project) == 16_785_408
    assert made.positions.numel() == 1_048_576


def counted(layers: int) -> int:
    """FLOPs that torch counts of so many layers, queries alone over ViT-g's features."""
    made = qformer(QFormerConfig(layers=layers), VIT_G)
    tokens = torch.empty(1, 257, 1_408, device="meta")
    with FlopCounterMode(display=False) as counter:
        made.read(Features(tokens=tokens, grid=VIT_G.grid, prefix=1), None, mask="uni-modal")
    return int(counter.get_total_flops())


def stated(layers: int) -> int:
    return QFormerConfig(layers=layers).stack_flops(1_408, 257)


@pytest.mark.parametrize("flops", [counted, stated])
def test_blip2s_flops_by_layer(flops: object) -> None:
    assert callable(flops)
    alone = flops(2) - flops(1)  # the second layer does not look at the image
    cross = flops(1) - alone
    assert alone == 150_994_944 + 3_145_728 + 301_989_888 == 456_130_560
    assert cross == 75_497_472 + 1_111_621_632 + 25_264_128 == 1_212_383_232
    assert flops(12) == 12 * alone + 6 * cross == 5_473_566_720 + 7_274_299_392
    assert 12 * alone == 5_473_566_720


def test_an_image_of_one_more_patch_costs_keys_values_and_products() -> None:
    config, target = QFormerConfig(), llm(4_096)
    more = FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=2)
    assert config.flops(more, target) - config.flops(VIT_G, target) == 6 * (4_325_376 + 98_304)
    assert config.flops(VIT_G, target) - stated(12) == 201_326_592


def test_numbers_that_blip2_and_qwen_vl_leave_of_an_image() -> None:
    target = llm(4_096)
    source = FeatureShape(width=1_664, grid=Grid(1, 32, 32))
    assert VIT_G.width * (VIT_G.prefix + VIT_G.grid.size) == 361_856
    assert QFormerConfig().num_tokens(VIT_G.grid) * QFormerConfig().width == 24_576
    assert source.width * source.grid.size == 1_703_936
    assert QwenVlConfig().num_tokens(source.grid) * target.embedding_width == 1_048_576
