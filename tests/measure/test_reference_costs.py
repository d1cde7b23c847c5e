"""Language models and whole systems of the literature in exact integers, each from its config alone.

The integers were made by others twice, from closed forms and by counting rebuilt modules; one multiply-add is 2 FLOPs.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isthmus.connectors import (
    AveragePoolConfig,
    GatedCrossAttentionConfig,
    MlpConfig,
    PixelShuffleConfig,
)
from isthmus.connectors.arrange import ARRANGEMENTS, DeepStack
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import DEEPSTACK_GRIDS, AnyresTiles, DynamicTiles, FinerTiles, OneView, SubImages
from isthmus.llms import CausalLM
from isthmus.measure import cost
from isthmus.measure.cost import causal_flops
from isthmus.measure.known import local_name, offline
from isthmus.model import Model

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64}
LLMS: dict[str, dict[str, int]] = {
    "qwen-7b": {"num_hidden_layers": 32, "hidden_size": 4_096, "intermediate_size": 11_008, "num_attention_heads": 32},
    "internlm2-20b": {
        "num_hidden_layers": 48,
        "hidden_size": 6_144,
        "intermediate_size": 16_384,
        "num_attention_heads": 48,
        "num_key_value_heads": 8,
    },
    "yi-34b": {
        "num_hidden_layers": 60,
        "hidden_size": 7_168,
        "intermediate_size": 20_480,
        "num_attention_heads": 56,
        "num_key_value_heads": 8,
    },
}

PREFILL = [
    ("facebook/opt-2.7b", 32, 161_396_817_920, 161_234_288_640, 10_485_760),
    ("facebook/opt-6.7b", 32, 412_853_731_328, 412_593_684_480, 16_777_216),
    ("facebook/opt-6.7b", 257, 3_346_048_483_328, 3_328_801_505_280, 134_742_016),
    ("lmsys/vicuna-7b-v1.5", 64, 831_076_171_776, 830_019_207_168, 33_554_432),
    ("lmsys/vicuna-7b-v1.5", 144, 1_875_961_184_256, 1_870_563_115_008, 75_497_472),
    ("qwen-7b", 256, 3_350_074_490_880, 3_332_961_730_560, 134_217_728),
    ("qwen-7b", 1_024, 13_812_614_823_936, 13_538_005_352_448, 536_870_912),
    ("lmsys/vicuna-7b-v1.5", 576, 7_634_304_368_640, 7_547_482_275_840, 301_989_888),
    ("lmsys/vicuna-7b-v1.5", 2_880, 41_650_445_352_960, 39_476_873_134_080, 1_509_949_440),
    ("lmsys/vicuna-7b-v1.5", 14_400, 295_225_314_508_800, 240_870_909_542_400, 7_549_747_200),
    ("lmsys/vicuna-13b-v1.5", 576, 14_888_101_478_400, 14_752_441_958_400, 471_859_200),
    ("lmsys/vicuna-13b-v1.5", 2_880, 79_876_325_376_000, 76_480_118_784_000, 2_359_296_000),
    ("internlm2-20b", 256, 9_663_676_416_000, 9_625_172_705_280, 50_331_648),
    ("internlm2-20b", 3_328, 137_688_061_575_168, 131_157_379_252_224, 654_311_424),
    ("internlm2-20b", 10_496, 522_998_167_633_920, 458_025_798_205_440, 2_063_597_568),
    ("internlm2-20b", 13_312, 707_535_732_473_856, None, None),
    ("yi-34b", 256, 17_249_662_402_560, 17_193_511_157_760, 62_914_560),
]

PER_TOKEN = [
    ("lmsys/vicuna-7b-v1.5", 12_952_010_752, 524_288),
    ("lmsys/vicuna-13b-v1.5", 25_375_539_200, 819_200),
    ("facebook/opt-2.7b", 5_033_164_800, 327_680),
    ("facebook/opt-6.7b", 12_884_901_888, 524_288),
    ("internlm2-20b", 37_446_746_112, 196_608),
    ("yi-34b", 66_941_091_840, 245_760),
]


def language_model(name: str, root: Path) -> CausalLM:
    if name in LLMS:
        folder = root / name
        folder.mkdir(exist_ok=True)
        numbers: dict[str, Any] = {**LLAMA, "num_key_value_heads": LLMS[name]["num_attention_heads"], **LLMS[name]}
        (folder / "config.json").write_text(json.dumps(numbers))
        return CausalLM(name=str(folder), precision="bfloat16")
    return CausalLM(name=local_name(name), precision="bfloat16")


@pytest.mark.parametrize(("name", "tokens", "dense", "causal", "kv"), PREFILL)
def test_prefill_and_cache(
    tmp_path: Path, name: str, tokens: int, dense: int, causal: int | None, kv: int | None
) -> None:
    llm = language_model(name, tmp_path)
    assert llm.flops(tokens) == dense
    assert causal is None or causal_flops(llm, tokens) == causal
    assert kv is None or llm.kv_bytes(tokens) == kv


@pytest.mark.parametrize(("name", "products", "kv"), PER_TOKEN)
def test_what_one_position_costs(tmp_path: Path, name: str, products: int, kv: int) -> None:
    llm = language_model(name, tmp_path)
    attention = (llm.flops(2) - 2 * llm.flops(1)) // 2
    assert llm.flops(1) - attention == products
    assert llm.kv_bytes(1) == kv


def test_prefill_is_products_with_weights_and_attention(tmp_path: Path) -> None:
    tokens = 13_312  # InternVL-1.5's 13 views without pixel shuffle
    products = tokens * 37_446_746_112
    assert products == 498_491_084_242_944
    assert language_model("internlm2-20b", tmp_path).flops(tokens) - products == 209_044_648_230_912


def test_a_decoded_token_pays_for_every_visual_one(tmp_path: Path) -> None:
    llm = language_model("lmsys/vicuna-7b-v1.5", tmp_path)
    layers, width, visual = 32, 4_096, 576
    assert causal_flops(llm, visual + 1) - causal_flops(llm, visual) - llm.flops(1) == 4 * layers * width * visual


def llava(**encoder: Any) -> Model:
    clip = VisionEncoder(name="openai/clip-vit-large-patch14-336", image_size=336, layers=(-1,))
    return Model(
        encoder=replace(clip, **encoder),
        connector=MlpConfig(),
        llm=CausalLM(name="lmsys/vicuna-7b-v1.5", max_tokens=4_096, precision="bfloat16"),
    )


def test_llava_one_view_and_five_views_in_sequence() -> None:
    one = cost(llava(), text_tokens=0)
    assert (one.prefill_flops, one.kv_bytes) == (8_040_381_775_872, 301_989_888)
    five = cost(llava(tiles=SubImages()), text_tokens=0)
    assert five.visual_tokens == 2_880
    assert (five.prefill_flops, five.kv_bytes) == (43_680_832_389_120, 1_509_949_440)
    assert five.connector.flops == 120_795_955_200
    assert five.encoder.flops == 5 * 381_918_216_192


def test_deepstack_costs_the_encoder_and_the_projector_alone() -> None:
    """DeepStack-L: 1 + 4 views, 576 positions in the language model, a fifth more to the first token."""
    stacked = replace(llava(tiles=AnyresTiles(grids=DEEPSTACK_GRIDS, pad=False)), arrange=DeepStack())
    bill = cost(stacked, image=(672, 672), text_tokens=0)
    assert (bill.views, bill.visual_tokens) == (5, 576)
    assert (bill.prefill_flops, bill.kv_bytes) == (9_664_691_404_800, 301_989_888)
    assert len(stacked.arrange.added_before()) * bill.visual_tokens * 4_096 == 9_437_184  # numbers that are added


def test_deepstack_hd_reads_2880_positions_and_stacks_four_times_as_many() -> None:
    stacked = replace(llava(tiles=FinerTiles(tiles=SubImages())), arrange=DeepStack(every_view=True))
    bill = cost(stacked, image=(1_344, 1_344), text_tokens=0)
    assert (bill.views * 576, bill.visual_tokens) == (14_400, 2_880)
    assert bill.llm.flops == 41_650_445_352_960


def test_gated_cross_attention_is_counted_in_every_layer_it_enters() -> None:
    model = offline(replace(llava(), connector=GatedCrossAttentionConfig()))
    source, target = model.source(), model.target()
    few, many = (cost(model, text_tokens=length).connector.flops for length in (10, 20))
    inner, latents, ffn = 512, 64, 4
    a_position = 4 * 4_096 * inner + 4 * latents * inner + 4 * ffn * 4_096**2
    layers = len(GatedCrossAttentionConfig().layers(target))
    assert many - few == 10 * layers * a_position
    assert few > GatedCrossAttentionConfig().flops(source, target)


@pytest.mark.parametrize(("tiles", "tokens"), [(1, 256), (2, 768), (6, 1_792), (12, 3_328), (40, 10_496)])
def test_internvl_tokens(tmp_path: Path, tiles: int, tokens: int) -> None:
    """256 for every tile and for the thumbnail, which one tile alone does not have."""
    encoder = VisionEncoder(
        name="openai/clip-vit-large-patch14", image_size=448, tiles=DynamicTiles(min_tiles=tiles, max_tiles=tiles)
    )
    model = Model(encoder=encoder, connector=PixelShuffleConfig(), llm=language_model("internlm2-20b", tmp_path))
    bill = cost(model, image=(1_600, 900), text_tokens=0)
    assert (bill.views, bill.visual_tokens) == (tiles + (tiles > 1), tokens)


def test_internvit_of_six_billion(tmp_path: Path) -> None:
    """The tower of InternVL 1.5 at 448 px: 45 blocks, width 3200, one tile, and a dozen with the thumbnail."""
    numbers = {
        "model_type": "clip_vision_model",
        "hidden_size": 3_200,
        "intermediate_size": 12_800,
        "num_hidden_layers": 45,
        "num_attention_heads": 25,
        "num_channels": 3,
        "patch_size": 14,
        "image_size": 448,
    }
    (tmp_path / "config.json").write_text(json.dumps(numbers))
    encoder = VisionEncoder(name=str(tmp_path), image_size=448, tiles=DynamicTiles(min_tiles=12, max_tiles=12))
    assert encoder.flops() == 11_944_693_516_800
    (tmp_path / "shorter").mkdir()
    (tmp_path / "shorter" / "config.json").write_text(json.dumps({**numbers, "num_hidden_layers": 44}))
    block = encoder.flops() - replace(encoder, name=str(tmp_path / "shorter")).flops()
    assert block == 2 * 1_025 * 122_880_000 + 4 * 1_025**2 * 3_200
    model = Model(encoder=encoder, connector=PixelShuffleConfig(), llm=language_model("internlm2-20b", tmp_path))
    bill = cost(model, image=(1_600, 1_200), text_tokens=0)
    assert (bill.encoder.flops, bill.llm.flops) == (13 * 11_944_693_516_800, 137_688_061_575_168)
    assert bill.connector.parameters == 116_429_824


@pytest.mark.parametrize(("arrange", "tokens"), [("anyres", 2_928), ("concatenate", 2_880)])
def test_a_square_image_in_llava_next(arrange: str, tokens: int) -> None:
    model = replace(llava(tiles=AnyresTiles()), arrange=ARRANGEMENTS[arrange]())
    bill = cost(model, image=(672, 672), text_tokens=0)
    assert bill.visual_tokens == tokens
    assert bill.arrange.parameters == (4_096 if arrange == "anyres" else 0)


def test_mm1_at_1344_pixels() -> None:
    """Five images of 144 tokens."""
    encoder = VisionEncoder(name="openai/clip-vit-large-patch14", image_size=672, tiles=SubImages())
    model = replace(llava(), encoder=encoder, connector=AveragePoolConfig(side=12))
    assert cost(model, image=(1_344, 1_344), text_tokens=0).visual_tokens == 720
    whole = replace(model, encoder=replace(encoder, tiles=OneView()))
    assert cost(whole, image=(1_344, 1_344), text_tokens=0).visual_tokens == 144
