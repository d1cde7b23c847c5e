"""Every closed form that `isthmus cost --formulas` prints, evaluated by its config's names, is the counted number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import BioGptConfig, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config

from isthmus.connectors import MlpConfig
from isthmus.encoders import VideoEncoder, VisionEncoder
from isthmus.llms import CausalLM
from isthmus.llms.base import read_config
from isthmus.measure import cost, formulas, training_memory
from isthmus.measure.closed_forms import DECODERS, TOWERS, decoder_form, tower_form
from isthmus.measure.known import local_name
from isthmus.measure.memory import tower_activations
from isthmus.model import Model
from isthmus.weights import resolve_model

TEXT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 70}
GATED = {**TEXT, "intermediate_size": 40, "num_key_value_heads": 2}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**GATED),
    "llama, tied": LlamaConfig(**GATED, tie_word_embeddings=True),
    "llama, wide heads": LlamaConfig(**GATED, head_dim=10),
    "mistral": MistralConfig(**GATED),
    "qwen2": Qwen2Config(**GATED),
    "qwen2, tied": Qwen2Config(**GATED, tie_word_embeddings=True),
    "opt": OPTConfig(**TEXT, ffn_dim=40, word_embed_proj_dim=24, max_position_embeddings=30),
}


def value(form: str, config: Any) -> int:
    """A printed form with the numbers of a config in it."""
    numbers = {name: one for name, one in vars(config).items() if isinstance(one, int)}
    numbers["tie_word_embeddings"] = getattr(config, "tie_word_embeddings", False)
    if numbers.get("head_dim") is None and "num_attention_heads" in numbers:
        numbers["head_dim"] = config.hidden_size // config.num_attention_heads
    made = eval(form, {"__builtins__": {}}, numbers)
    assert isinstance(made, int)
    return made


@pytest.mark.parametrize("name", list(CONFIGS))
def test_decoders(name: str, tmp_path: Path) -> None:
    CONFIGS[name].save_pretrained(tmp_path)
    llm = CausalLM(name=str(tmp_path))
    form = decoder_form(llm)
    assert form is not None
    assert value(form, CONFIGS[name]) == llm.parameters()


def test_every_decoder_that_has_a_form_was_tried() -> None:
    assert {name.split(",")[0] for name in CONFIGS} == set(DECODERS)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**GATED, attention_bias=True),
        LlamaConfig(**GATED, mlp_bias=True),
        OPTConfig(**TEXT, ffn_dim=40, word_embed_proj_dim=12),
        OPTConfig(**TEXT, ffn_dim=40, word_embed_proj_dim=24, do_layer_norm_before=False),
        BioGptConfig(**TEXT),
    ],
)
def test_where_a_form_would_be_wrong_none_is_given(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert decoder_form(CausalLM(name=str(tmp_path))) is None


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("bundled/eye", "clip_vision_model", -2),
        ("openai/clip-vit-large-patch14-336", "clip_vision_model", -2),
        ("google/siglip-so400m-patch14-384", "siglip_vision_model", -1),
        ("Salesforce/blip2-opt-2.7b", "blip_2_vision_model", -1),
    ],
)
@pytest.mark.parametrize("final_norm", [False, True])
def test_towers(name: str, kind: str, layer: int, final_norm: bool) -> None:
    tower = VisionEncoder(name=local_name(name), layers=(layer,), final_norm=final_norm and layer == -1)
    assert tower.trimmed().model_type == kind
    form = tower_form(tower)
    assert form is not None
    assert form == tower_form(VideoEncoder(tower=tower, max_frames=2))
    assert value(form, tower.trimmed()) == tower.parameters()
    assert kind in TOWERS


def test_what_is_printed_is_the_cost() -> None:
    """LLaVA-1.5: the forms of a stage as `--formulas` prints them, with the numbers of both configs."""
    model = Model(
        encoder=VisionEncoder(name="openai/clip-vit-large-patch14-336", image_size=336, layers=(-2,)),
        connector=MlpConfig(),
        llm=CausalLM(name="lmsys/vicuna-7b-v1.5", precision="bfloat16"),
    )
    found = {(one.part, one.quantity): one.text for one in formulas(model)}
    tower = replace(model.encoder, name=local_name("openai/clip-vit-large-patch14-336"))
    assert isinstance(tower, VisionEncoder)
    assert value(found["encoder", "parameters"], tower.trimmed()) == cost(model).encoder.parameters == 290_909_184
    decoder = read_config(local_name("lmsys/vicuna-7b-v1.5"))
    assert value(found["llm", "parameters"], decoder) == cost(model).llm.parameters == 6_738_415_616


def test_memory_is_what_its_formula_says() -> None:
    model = Model(
        encoder=VisionEncoder(),
        connector=MlpConfig(),
        llm=CausalLM(name="bundled/speaker", precision="bfloat16", max_tokens=256),
    )
    found = {(one.part, one.quantity): one.text for one in formulas(model)}
    said = found["all", "training memory"]
    for words in ("bytes a number * parameters, summed", "AdamW: 2 * gradients", "samples * those of one sample"):
        assert words in said
    train, text = ("llm",), 40
    bill, memory = cost(model, train=train, text_tokens=text), training_memory(model, train=train, text_tokens=text)
    assert memory.weights == 4 * (bill.encoder.parameters + bill.connector.parameters) + 2 * bill.llm.parameters
    assert (memory.gradients, memory.optimizer) == (2 * bill.llm.learned, 4 * bill.llm.learned)
    assert memory.total == memory.weights + 3 * memory.gradients + memory.activations
    many = training_memory(model, train=train, text_tokens=text, samples=7)
    assert many.activations == 7 * memory.activations

    assert "text tokens * vocabulary * (bytes a number + 4)" in found["llm", "activations"]
    assert "L * T * hidden width * bytes a number + K / L, rounded up" in found["llm", "activations"]
    config = read_config(resolve_model("bundled/speaker"))
    layers, length, logits = config.num_hidden_layers, bill.visual_tokens + text, text * config.vocab_size * (2 + 4)
    kept = memory.activations - logits  # nothing else learns, so nothing else is kept
    assert model.llm is not None
    thrifty = replace(model, llm=replace(model.llm, checkpointing=True))
    less = training_memory(thrifty, train=train, text_tokens=text).activations
    assert less == layers * length * config.hidden_size * 2 + -(-kept // layers) + logits


def test_activations_of_a_tower_are_what_their_formula_says() -> None:
    tower = VisionEncoder(image_size=96)
    kept, pixels = tower_activations(tower, 1), 3 * 96 * 96
    assert tower_activations(tower, 5) == 5 * kept
    thrifty = replace(tower, checkpointing=True, views_at_once=2)
    assert tower_activations(thrifty, 5) == 5 * pixels * 4 + 2 * kept
