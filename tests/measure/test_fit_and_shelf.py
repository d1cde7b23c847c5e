"""What fits into a given memory, the shelf side by side, the formulas, and models named by their native config."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    Qwen3VLConfig,
    VipLlavaConfig,
)

from isthmus.connectors import (
    CONNECTORS,
    InstructQFormerConfig,
    MlpConfig,
    QFormerConfig,
    Qwen3VlConfig,
    WindowedStreamsConfig,
)
from isthmus.connectors.arrange import Anyres, Levels
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.features import LLMShape
from isthmus.llms import CausalLM, EncoderDecoderLM, LLMConfig
from isthmus.measure import cost, fits, formulas, native_model, read_bytes, shelf, training_memory
from isthmus.measure.known import local_name, offline
from isthmus.model import Model

sys.path.append(str(Path(__file__).parent.parent / "exchange"))

import tiny_natives as tiny

GIB = 2**30


CLIP = VisionEncoder(name="openai/clip-vit-large-patch14", image_size=224)


def small() -> Model:
    return Model(
        encoder=CLIP,
        connector=MlpConfig(),
        llm=CausalLM(name="facebook/opt-2.7b", max_tokens=2_048),
    )


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 * GIB), ("1.5 GiB", 3 * GIB // 2), ("800MB", 800_000_000), ("2tib", 2**41)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["24", "GiB", "-1GiB", "0GiB", "many GiB", ""])
def test_no_size_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="such as 24GiB"):
        read_bytes(text)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    found = {(fit.precision, fit.checkpointing): fit for fit in fits(small(), 24 * GIB)}
    assert len(found) == 4
    for fit in found.values():
        one = fit.memory.activations // max(1, fit.samples)
        if fit.samples:
            assert fit.memory.total <= 24 * GIB < fit.memory.total + one
        else:
            assert fit.memory.total > 24 * GIB
    again = training_memory(replace(small(), encoder=replace(CLIP, precision="bfloat16"), llm=half(small())), samples=3)
    fit = found["bfloat16", False]
    assert again.weights == fit.memory.weights
    assert again.activations == 3 * (fit.memory.activations // fit.samples)


def half(model: Model) -> CausalLM:
    assert isinstance(model.llm, CausalLM)
    return replace(model.llm, precision="bfloat16")


def test_checkpointing_and_half_precision_make_room() -> None:
    found = {(fit.precision, fit.checkpointing): fit.samples for fit in fits(small(), 40 * GIB)}
    assert found["float32", False] < found["float32", True]
    assert found["bfloat16", False] < found["bfloat16", True]
    assert found["float32", False] < found["bfloat16", False]


def test_nothing_fits_into_a_little() -> None:
    assert {fit.samples for fit in fits(small(), GIB)} == {0}


def test_a_tower_that_learns_keeps_activations_and_chunks_bound_them() -> None:
    frozen = training_memory(small(), train=("connector",)).activations
    learned = training_memory(small(), train=("connector", "encoder")).activations
    assert learned > frozen
    tiled = replace(CLIP, tiles=AnyresTiles(), image_size=224, checkpointing=True, views_at_once=1)
    image, train = (448, 448), ("connector", "encoder")
    bounded = training_memory(replace(small(), encoder=tiled), image=image, train=train)
    kept = training_memory(replace(small(), encoder=replace(tiled, checkpointing=False)), image=image, train=train)
    a_tower = (learned - frozen) * 9 // 10
    assert kept.activations - bounded.activations > 3 * a_tower


def test_every_connector_stands_on_the_shelf() -> None:
    rows = {row.name: row for row in shelf(small(), text_tokens=0)}
    assert list(rows) == list(CONNECTORS)
    for row in rows.values():
        assert (row.bill is None) == bool(row.misfit)
    assert rows["mlp"].bill == cost(small(), text_tokens=0)
    linear = rows["linear"].bill
    assert linear is not None
    assert linear.connector.parameters == 1_024 * 2_560 + 2_560


def test_levels_stand_on_the_shelf_through_levels() -> None:
    row = next(row for row in shelf(small(), text_tokens=0) if row.name == "windowed-streams")
    assert row.arrange == Levels(layers=tuple(range(1, len(WindowedStreamsConfig().streams))))
    stands = replace(small(), connector=WindowedStreamsConfig(), arrange=row.arrange)
    assert row.bill == cost(stands, text_tokens=0)
    deeper = replace(small(), arrange=Levels(layers=(7, 9)), connector=Qwen3VlConfig())
    refused = next(row for row in shelf(deeper) if row.name == "windowed-streams")
    assert refused.arrange is None
    assert "names 2 layers" in refused.misfit
    assert refused.misfit.endswith("(Qwen3VlConfig).")


def test_a_misfit_on_the_shelf_says_why() -> None:
    odd = replace(small(), encoder=replace(CLIP, image_size=210))
    row = next(row for row in shelf(odd) if row.name == "pixel-shuffle")
    assert "15 x 15" in row.misfit


def test_every_part_states_its_formulas() -> None:
    found = {(one.part, one.quantity): one.text for one in formulas(small())}
    assert found["connector", "parameters"] == "d_v d + d, then depth - 1 times d d + d."
    assert "4 n n d" in found["encoder", "flops"]
    assert all(text for text in found.values())


@pytest.mark.parametrize("name", list(CONNECTORS))
def test_every_connector_states_its_formulas(name: str) -> None:
    config = CONNECTORS[name]
    for quantity in ("num_tokens", "parameters", "flops"):
        assert getattr(config, quantity).__doc__, f"{name} does not say how {quantity} is computed"


def test_llava_of_the_hub_needs_no_network() -> None:
    bill = cost(native_model("llava-hf/llava-1.5-7b-hf"), text_tokens=0)
    assert (bill.visual_tokens, bill.connector.parameters) == (576, 20_979_712)
    assert bill.llm.parameters == 6_738_415_616 + 2 * 64 * 4_096
    assert bill.kv_bytes == 301_989_888


def test_llava_next_of_the_hub_has_its_tiles() -> None:
    model = native_model("llava-hf/llava-v1.6-vicuna-7b-hf")
    assert isinstance(model.encoder, VisionEncoder)
    assert model.encoder.tiles == AnyresTiles(grids=((2, 1), (1, 2), (2, 2), (1, 3), (3, 1)))
    assert model.arrange == Anyres(digits=7)
    assert cost(model, image=(672, 672)).visual_tokens == 2_928


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "Salesforce/blip2-opt-2.7b"])
def test_parameters_of_the_native_class(name: str) -> None:
    """All that the native class holds, less what is not run: blocks and norms behind the chosen layer."""
    model = native_model(name)
    with torch.device("meta"):
        native = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(local_name(name)))
    counts = {key: one.numel() for key, one in native.named_parameters()}
    tower = sum(count for key, count in counts.items() if "vision" in key)
    bill = cost(model)
    assert bill.llm.parameters + bill.connector.parameters == sum(counts.values()) - tower + (
        2 * 1_408 if name.startswith("Salesforce") else 0
    )
    assert 0 <= tower - bill.encoder.parameters < tower / 20


WHOLE = {
    "blip2-opt": tiny.blip2(tiny.opt()),
    "blip2-t5": tiny.blip2(tiny.t5()),
    "instructblip-opt": tiny.instructblip(tiny.opt()),
    "instructblip-t5": tiny.instructblip(tiny.t5()),
    "idefics2": tiny.idefics2(),
    "internvl": tiny.internvl(),
    "llava-next": tiny.llava_next(),
    "perception-lm": tiny.perception(),
}


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_folder_of_every_class_that_runs_go_out_to_has_its_cost(name: str, tmp_path: Path) -> None:
    WHOLE[name].save_pretrained(tmp_path)
    with torch.device("meta"):
        native = AutoModelForImageTextToText.from_config(WHOLE[name])
    counts = {key: one.numel() for key, one in native.named_parameters()}
    tower = sum(count for key, count in counts.items() if "vision" in key)
    own = 2 * 16 if "blip" in name else 0  # ln_vision stands in the tower there
    bill = cost(native_model(str(tmp_path)), text_tokens=4)
    assert (
        bill.llm.parameters + bill.connector.parameters + bill.arrange.parameters == sum(counts.values()) - tower + own
    )
    assert bill.visual_tokens == {"idefics2": 5, "internvl": 4, "llava-next": 16 + 4 * 5, "perception-lm": 16}.get(
        name, 5
    )


def test_a_vipllava_of_one_layer_has_its_norm_in_the_tower(tmp_path: Path) -> None:
    config = VipLlavaConfig(vision_config=tiny.clip(), text_config=tiny.llama(), vision_feature_layer=-1)
    config.save_pretrained(tmp_path)
    model = native_model(str(tmp_path))
    with torch.device("meta"):
        native = AutoModelForImageTextToText.from_config(config)
    projector = sum(one.numel() for key, one in native.named_parameters() if "projector" in key)
    assert cost(model).connector.parameters + 2 * 16 == projector
    VipLlavaConfig(vision_config=tiny.clip(), text_config=tiny.llama()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="VipLlava of one is understood"):
        native_model(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "made", "parameters"),
    [
        ("openlm-research/open_llama_3b_v2", CausalLM, 3_426_473_600),
        ("NousResearch/Nous-Hermes-2-Yi-34B", CausalLM, 34_388_917_248),
        ("Qwen/Qwen1.5-7B-Chat", CausalLM, 7_721_324_544),
        ("lmsys/vicuna-7b-v1.1", CausalLM, 6_738_415_616),
        ("google/flan-t5-xl", EncoderDecoderLM, 2_849_757_184),
    ],
)
def test_known_language_models_have_their_published_size(name: str, made: type[LLMConfig], parameters: int) -> None:
    assert made(name=local_name(name)).parameters() == parameters


def test_what_a_connector_starts_from_is_not_read_for_its_cost() -> None:
    absent = QFormerConfig(text=True, start_from="owner/absent")
    model = replace(small(), connector=InstructQFormerConfig(qformer=absent))
    target = LLMShape(embedding_width=2_560, hidden_width=2_560, num_layers=32)
    assert cost(model).connector.parameters == absent.parameters(offline(model).source(), target)


def test_other_kinds_are_refused_with_a_way_out(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'llama' model; .*--model.encoder.name"):
        native_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"perception_lm is understood here"):
        native_model(str(tmp_path))
    pooled = tiny.perception()
    pooled.projector_pooling_ratio = 2
    pooled.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"pools by 2 behind the MLP"):
        native_model(str(tmp_path))
    Qwen3VLConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'qwen3_vl' model; a whole model of llava"):
        native_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        native_model(str(tmp_path.parent))


@pytest.mark.parametrize("kind", [LlavaConfig, LlavaNextConfig])
def test_a_folder_alone_is_enough(tmp_path: Path, kind: type) -> None:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    config = kind(vision_config=vision, text_config=text, vision_feature_layer=-2)
    if kind is LlavaNextConfig:
        config.image_grid_pinpoints = [[28, 56], [56, 28]]
    config.save_pretrained(tmp_path)
    bill = cost(native_model(str(tmp_path)), image=(56, 28))
    assert bill.visual_tokens == (4 if kind is LlavaConfig else 4 + 2 * 5)
    assert bill.connector.parameters == 16 * 24 + 24 + 24 * 24 + 24


def test_internvl_of_a_folder_is_cut_into_tiles(tmp_path: Path) -> None:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [28, 28],
        "patch_size": [7, 7],
    }
    text = LlamaConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    InternVLConfig(vision_config=vision, text_config=text).save_pretrained(tmp_path)
    model = native_model(str(tmp_path))
    assert (cost(model, image=(28, 28)).views, cost(model, image=(84, 56)).views) == (1, 7)
    bill = cost(model, image=(84, 56))
    assert bill.visual_tokens == 7 * 4
    with torch.device("meta"):
        native = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(tmp_path))
    projector = sum(one.numel() for name, one in native.named_parameters() if "projector" in name)
    assert bill.connector.parameters == projector
