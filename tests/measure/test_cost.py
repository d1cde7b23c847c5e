"""Costs against published counts, hand-computed integers and torch's own counter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isthmus.connectors import AveragePoolConfig, ChannelConcatConfig, MlpConfig, PixelShuffleConfig, QFormerConfig
from isthmus.encoders import (
    BoundEncoder,
    PairedEncoder,
    StackedVisionEncoder,
    VideoEncoder,
    VisionEncoder,
)
from isthmus.encoders.tiles import AnyresTiles, OneView
from isthmus.llms import CausalLM, EncoderDecoderLM
from isthmus.measure import Cost, cost
from isthmus.measure.cost import causal_flops
from isthmus.measure.known import FOLDER, known_names, offline
from isthmus.model import Model


def llava(llm: str = "lmsys/vicuna-7b-v1.5", layer: int = -1) -> Model:
    return Model(
        encoder=VisionEncoder(name="openai/clip-vit-large-patch14-336", image_size=336, layers=(layer,)),
        connector=MlpConfig(depth=2),
        llm=CausalLM(name=llm, max_tokens=2_048, precision="bfloat16"),
    )


def test_llava15_7b_in_exact_integers() -> None:
    bill = cost(llava(), text_tokens=0)
    assert bill.visual_tokens == 576
    assert bill.encoder.flops == 381_918_216_192
    assert bill.connector.parameters == bill.connector.learned == 20_979_712
    assert bill.connector.flops == 24_159_191_040
    assert bill.llm.flops == 7_634_304_368_640
    assert bill.llm_causal_flops == 7_547_482_275_840
    assert bill.prefill_flops == 8_040_381_775_872
    assert bill.kv_bytes == 301_989_888
    assert bill.llm.parameters == 6_738_415_616
    assert bill.llm.frozen == 6_738_415_616
    assert bill.head_flops == 2 * 32_000 * 4_096


def test_penultimate_layer_runs_one_block_less() -> None:
    assert cost(llava(layer=-2)).encoder.flops == 366_033_858_560


def test_llava15_13b() -> None:
    bill = cost(llava("lmsys/vicuna-13b-v1.5"), text_tokens=0)
    assert (bill.connector.parameters, bill.connector.flops) == (31_467_520, 36_238_786_560)
    assert (bill.llm.flops, bill.llm_causal_flops) == (14_888_101_478_400, 14_752_441_958_400)
    assert bill.kv_bytes == 471_859_200


@pytest.mark.parametrize(
    ("side", "tokens", "connector", "llm"),
    [(12, 144, 6_039_797_760, 1_875_961_184_256), (8, 64, 2_684_354_560, 831_076_171_776)],
)
def test_pooling_cuts_the_llm_bill(side: int, tokens: int, connector: int, llm: int) -> None:
    model = llava()
    bill = cost(Model(encoder=model.encoder, connector=AveragePoolConfig(side=side), llm=model.llm), text_tokens=0)
    assert (bill.visual_tokens, bill.connector.flops, bill.llm.flops) == (tokens, connector, llm)


@pytest.mark.parametrize(
    ("llm", "parameters", "flops", "prefill"),
    [
        ("facebook/opt-2.7b", 107_130_880, 12_873_695_232, 161_396_817_920),
        ("facebook/opt-6.7b", 108_312_064, 12_949_192_704, 412_853_731_328),
    ],
)
def test_blip2(tmp_path: Path, llm: str, parameters: int, flops: int, prefill: int) -> None:
    bill = cost(blip2(tmp_path, llm), text_tokens=0)
    ln_vision = 2 * 1_408
    assert bill.connector.parameters - ln_vision == parameters
    assert bill.connector.flops == flops
    assert bill.llm.flops == prefill
    assert bill.visual_tokens == 32


def blip2(folder: Path, llm: str) -> Model:
    """ViT-g/14 of EVA-CLIP at 224 px, as BLIP-2 uses it."""
    numbers = {
        "model_type": "blip_2_vision_model",
        "hidden_size": 1_408,
        "intermediate_size": 6_144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "num_channels": 3,
        "patch_size": 14,
        "image_size": 224,
    }
    (folder / "config.json").write_text(json.dumps(numbers))
    encoder = VisionEncoder(name=str(folder), image_size=224, class_token=True)
    return Model(encoder=encoder, connector=QFormerConfig(), llm=CausalLM(name=llm, max_tokens=2_048))


def flan_t5_xxl(folder: Path) -> str:
    """The numbers of google/flan-t5-xxl."""
    numbers = {
        "model_type": "t5",
        "d_model": 4_096,
        "d_kv": 64,
        "d_ff": 10_240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "vocab_size": 32_128,
    }
    (folder / "config.json").write_text(json.dumps(numbers))
    return str(folder)


def test_the_head_of_flan_t5_is_a_table_of_its_own(tmp_path: Path) -> None:
    table, width = 32_128 * 2_048, 2_048
    blocks = 24 * (4 * width**2 + 3 * width * 5_120 + 2 * width) + 24 * (8 * width**2 + 3 * width * 5_120 + 3 * width)
    ends = 2 * (32 * 32 + width)  # relative positions and the last norm, of encoder and decoder
    assert 2 * table + blocks + ends == 2_849_757_184
    model = replace(llava(), llm=EncoderDecoderLM(name="google/flan-t5-xl", precision="bfloat16"))
    bill = cost(model, train=("connector", "llm.model.lm_head"))
    assert bill.llm.parameters == 2_849_757_184
    assert bill.llm.learned == table == 65_798_144
    assert bill.head_flops == 2 * table
    with pytest.raises(ValueError, match=r"No parameter is called 'llm\.model\.lm_head'"):
        cost(replace(model, llm=EncoderDecoderLM()), train=("llm.model.lm_head",))
    largest = EncoderDecoderLM(name=flan_t5_xxl(tmp_path))
    assert largest.parameters() == 11_135_332_352


def test_llm_flops_are_what_torch_counts() -> None:
    llm = offline(llava()).llm
    assert llm is not None
    length = 40
    mask = torch.empty(1, 1, length, length, device="meta")
    embedded = torch.empty(1, length, 4_096, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        llm.skeleton().base_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)  # type: ignore[operator]
    assert counter.get_total_flops() == llm.flops(length)


def test_causal_flops_count_half_the_pairs_and_the_diagonal() -> None:
    llm = offline(llava()).llm
    assert llm is not None
    assert causal_flops(llm, 1) == llm.flops(1)
    pair = 4 * 32 * 4_096
    assert llm.flops(10) - causal_flops(llm, 10) == pair * (100 - 55)


def test_text_and_image_together_cost_more_than_apart() -> None:
    bill = cost(llava(), text_tokens=64)
    assert bill.text_tokens == 64
    cross = 8 * 32 * 576 * 64 * 4_096
    assert bill.llm_visual_flops == 7_634_304_368_640 + cross


def test_training_flops_follow_what_learns() -> None:
    aligned, tuned = cost(llava()), cost(llava(), train=("connector", "llm"))
    parts = aligned.encoder.flops, aligned.connector.flops, aligned.llm.flops
    assert aligned.training_flops() == parts[0] + 3 * parts[1] + 2 * parts[2]
    assert aligned.training_flops(cached_features=True) == 3 * parts[1] + 2 * parts[2]
    assert tuned.training_flops() == parts[0] + 3 * parts[1] + 3 * parts[2]


def test_learned_parameters_by_dotted_path() -> None:
    bill = cost(llava(), train=("connector", "llm.model.model.layers.31"))
    assert bill.llm.learned == 4 * 4_096**2 + 3 * 4_096 * 11_008 + 2 * 4_096
    assert bill.learned == bill.llm.learned + 20_979_712
    assert cost(llava(), train=("encoder",)).encoder.frozen == 0


def test_a_path_named_twice_counts_once() -> None:
    once: Cost = cost(llava(), train=("llm",))
    assert cost(llava(), train=("llm.model.model.layers.0", "llm")).llm.learned == once.llm.learned


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (("conector",), "'conector'. Did you mean 'connector'"),
        (("llm.model.layers.3",), "llm.model.model.layers.3"),
        (("encoder.tower",), "name 'encoder'"),
    ],
)
def test_paths_that_name_nothing_are_refused(train: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cost(llava(), train=train)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no image of 0 x 5 px"):
        cost(llava(), image=(0, 5))


def test_an_image_is_as_large_as_a_view_of_any_encoder() -> None:
    tower = VisionEncoder(name="openai/clip-vit-large-patch14-336", image_size=336, tiles=AnyresTiles(grids=((2, 2),)))
    plain = replace(tower, tiles=OneView())
    for encoder, connector in (
        (StackedVisionEncoder(tower=tower, groups=4, start_block=12), MlpConfig()),
        (PairedEncoder(first=tower, second=plain), ChannelConcatConfig()),
        (VideoEncoder(tower=plain, max_frames=2), MlpConfig()),
    ):
        assert cost(replace(llava(), encoder=encoder, connector=connector)).image == (336, 336)
    assert BoundEncoder().view_side() == BoundEncoder().eye.image_size


def test_the_largest_known_architecture_has_the_parameters_of_its_parts() -> None:
    name = "OpenGVLab/InternVL3-38B-hf"
    tower = VisionEncoder(name=name, image_size=448, layers=(-1,))
    model = Model(encoder=tower, connector=PixelShuffleConfig(factor=2, order="v2"), llm=CausalLM(name=name))
    bill = cost(model)
    assert 5_530_000_000 < bill.encoder.parameters < 5_550_000_000  # "5540 M, the last 3 blocks are discarded"
    assert round(bill.parameters / 1e9, 1) == 38.4
    assert bill.visual_tokens == 256


def test_known_architectures_are_listed_with_their_source() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert "openai/clip-vit-large-patch14-336" in known_names()
    assert [name for name in known_names() if name not in readme] == []


def test_offline_leaves_other_names_alone() -> None:
    model = Model(encoder=VisionEncoder(name="bundled/eye"), llm=CausalLM(name="owner/model"))
    assert offline(model) == model
