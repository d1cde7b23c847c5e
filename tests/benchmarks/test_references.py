"""What connectors are timed against computes the same, and passes the same oracles."""

import argparse
import math
from dataclasses import replace

import pytest
import torch
from oracle_files import Oracle, oracles
from torch import nn

from benchmarks import connectors
from benchmarks.connectors import interval, verdict
from benchmarks.references import make_reference
from benchmarks.references.cases import make_case, make_inputs
from benchmarks.references.plain_attention import PlainMatryoshka, PlainPerceiver, PlainQwenVl
from benchmarks.references.plain_honeybee import PlainCAbstractor, PlainDAbstractor, PlainMlp, PlainResampler
from benchmarks.references.plain_maps import PlainAveragePool, PlainLdp, PlainLdpV2, PlainPixelShuffle, PlainTokenPacker
from benchmarks.references.plain_qllama import PlainQLlama
from isthmus.connectors import QLlamaConfig

REFERENCED = (
    "linear",
    "mlp",
    "average-pool",
    "pixel-shuffle",
    "channel-concat",
    "qwen3-vl",
    "q-former",
    "qllama",
    "instruct-q-former",
    "video-q-former",
    "audio-q-former",
    "windowed-q-former",
    "perceiver",
    "idefics2",
    "attention-pool",
    "qwen-vl",
    "matryoshka",
    "c-abstractor",
    "d-abstractor",
    "honeybee-mlp",
    "honeybee-resampler",
    "ldp",
    "ldp-v2",
    "token-packer",
)
"""The others are timed alone, or not at all for a reason in `cases`."""


@pytest.mark.parametrize("name", REFERENCED)
def test_a_reference_with_equal_weights_gives_equal_numbers(name: str) -> None:
    case = make_case(name, tiny=True)
    connector = case.config.build(case.source, case.target).eval()
    reference = make_reference(case.config, case.source, case.target, attention="sdpa")
    assert reference is not None
    reference.module.eval()
    reference.take_weights(connector)
    features, text = make_inputs(case, batch=2, device="cpu", dtype=torch.float32)
    ours = (connector(features) if text is None else connector(features, text)).tokens
    torch.testing.assert_close(ours, reference(features, text), atol=1e-5, rtol=1e-4)
    counted = case.config.parameters(case.source, case.target)
    frozen = sum(weight.numel() for weight in reference.module.parameters() if not weight.requires_grad)
    assert sum(weight.numel() for weight in reference.module.parameters()) - frozen == counted


def close(oracle: Oracle, key: str, module: nn.Module, *given: torch.Tensor) -> None:
    module.load_state_dict(oracle.below("weights/"))
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(*given), oracle.tensors[key], atol=1e-5, rtol=1e-4)


@oracles("honeybee_cabstractor")
def test_plain_c_abstractor(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    if said["prenorm"] or said["num_eos_tokens"] or not said["depth"] or not said["pos_emb"] or said["mlp_depth"] != 2:
        pytest.skip("the plain module has the published options alone")
    side = math.isqrt(said["num_query_tokens"])
    sizes = {"width": said["hidden_size"], "depth": said["depth"], "side": side}
    plain = PlainCAbstractor(x.shape[1], x.shape[2], said["output_hidden_size"], **sizes)
    close(oracle, "outputs/last_hidden_state", plain, x)


@oracles("honeybee_dabstractor")
def test_plain_d_abstractor(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    if said["pooled_v_target"] == "none" or not said["pos_emb"] or said["num_eos_tokens"] or x.dim() == 4:
        pytest.skip("the plain module has the published options alone")
    plain = PlainDAbstractor(
        x.shape[1],
        x.shape[2],
        said["output_hidden_size"],
        side=math.isqrt(said["num_queries"]),
        layer=(said["d_model"], said["heads"], said["n_points"], said["ffn"]),
        layers=said["decoder_layers"],
        pooled=said["pooled_v_target"],
    )
    close(oracle, "outputs/last_hidden_state", plain, x)


@oracles("honeybee_mlp")
def test_plain_mlp(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    plain = PlainMlp(x.shape[2], said["output_hidden_size"], depth=said["depth"], prenorm=True)
    close(oracle, "outputs/last_hidden_state", plain, x)


def test_plain_resampler() -> None:
    """The oracle has positions, which Honeybee's configuration leaves out: they are added to the features here."""
    oracle = Oracle("honeybee_resampler")
    said, x = oracle.config, oracle.tensors["inputs/x"]
    plain = PlainResampler(
        x.shape[2],
        said["output_hidden_size"],
        queries=said["num_query_tokens"],
        width=said["hidden_size"],
        layers=said["num_hidden_layers"],
        heads=said["num_attention_heads"],
        inner=said["intermediate_size"],
    )
    x = x + oracle.tensors.pop("weights/pos_emb")
    close(oracle, "outputs/last_hidden_state", plain, x)


@oracles("deco_avgpool")
def test_plain_average_pool(name: str) -> None:
    oracle = Oracle(name)
    said = oracle.config
    plain = PlainAveragePool(said["mm_hidden_size"], said["llm_hidden_size"], math.isqrt(said["query_num"]))
    close(oracle, "outputs/y", plain, oracle.tensors["inputs/x"])


@oracles("mobilevlm_ldp")
def test_plain_ldp(name: str) -> None:
    oracle = Oracle(name)
    said = oracle.config
    inner = oracle.tensors["weights/model.mb_block.1.block.1.fc1.weight"].shape[0]
    close(oracle, "case0/y", PlainLdp(said["mm_hidden_size"], said["hidden_size"], inner), oracle.tensors["case0/x"])


@oracles("mobilevlm_ldpv2")
def test_plain_ldp_v2(name: str) -> None:
    oracle = Oracle(name)
    said = oracle.config
    close(oracle, "case1/y", PlainLdpV2(said["mm_hidden_size"], said["hidden_size"], 12), oracle.tensors["case1/x"])


@oracles("tokenpacker")
def test_plain_token_packer(name: str) -> None:
    oracle = Oracle(name)
    said, x, levels = oracle.config, oracle.tensors["inputs/x"], oracle.tensors["inputs/x_multi"]
    for factor in said["scale_factors"]:
        sizes = {"width": said["embed_dim"], "heads": said["num_heads"], "factor": factor}
        plain = PlainTokenPacker(x.shape[2], levels.shape[2], said["hidden_size"], **sizes)
        close(oracle, f"outputs/scale{factor}/y", plain, x, levels)


@oracles("open_flamingo_perceiver")
def test_plain_perceiver(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    if said["max_num_frames"] or said["max_num_media"] or x.shape[1] > 1:
        pytest.skip("the plain module has the published options alone")
    sizes = {"layers": said["depth"], "heads": said["heads"], "head_width": said["dim_head"]}
    plain = PlainPerceiver(said["dim"], 1, latents=said["num_latents"], **sizes).eval()
    plain.project = nn.Identity()
    plain.perceiver.load_state_dict(oracle.below("weights/"))
    with torch.no_grad():
        torch.testing.assert_close(plain(x.flatten(1, 3)), oracle.tensors["outputs/y"][:, 0], atol=1e-5, rtol=1e-4)


@oracles("qwen_vl_resampler")
def test_plain_qwen_vl(name: str) -> None:
    oracle = Oracle(name)
    said = oracle.config
    queries = said["grid_size"] ** 2
    plain = PlainQwenVl(said["kv_dim"], said["embed_dim"], queries=queries, heads=said["num_heads"])
    outside = ("ln_post.weight", "ln_post.bias", "proj")
    weights = {key if key in outside else f"attn_pool.{key}": one for key, one in oracle.below("weights/").items()}
    plain.load_state_dict(weights)
    for case in oracle.info["cases"]:
        with torch.no_grad():
            given = plain(oracle.tensors[f"{case}/x"])
        torch.testing.assert_close(given, oracle.tensors[f"{case}/output"], atol=1e-5, rtol=1e-4)


@oracles("mqt_resampler")
def test_plain_matryoshka(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    sizes = {"queries": said["num_queries"], "heads": said["num_heads"]}
    for tokens in said["m"]:
        plain = PlainMatryoshka(said["kv_dim"], said["embed_dim"], tokens=tokens, **sizes)
        close(oracle, f"outputs/m{tokens}", plain, x)


OUTSIDE_THE_PASS = (
    "weights/clip_projector",
    "weights/text_projection",
    "weights/logit_scale",
    "weights/itm_head",
    "weights/qllama.lm_head",
    "weights/qllama.model.embed_tokens",
)
"""QLLaMA's words and heads, which a pass over images does without."""


@oracles("internvl_g_stage2")
def test_plain_qllama(name: str) -> None:
    """Where stage 2 contrasts, queries see queries alone."""
    oracle = Oracle(name)
    said = oracle.config
    config = QLlamaConfig(
        num_queries=said["queries"],
        width=said["hidden"],
        layers=said["layers"],
        heads=said["heads"],
        ffn_width=said["ffn"],
        cross_every=said["cross_freq"],
        eps=said["rms_eps"],
    )
    plain = PlainQLlama(config, said["vision_width"], 1)
    plain.project = nn.Identity()
    for key in list(oracle.tensors):
        if key.startswith(OUTSIDE_THE_PASS) or key.endswith("rotary_emb.inv_freq"):
            del oracle.tensors[key]
    close(oracle, "outputs/query_output_itc", plain, oracle.tensors["inputs/visual_features"])


def test_at_paper_size_qllama_has_a_layer_of_each_kind_and_published_widths() -> None:
    case, whole = make_case("qllama", tiny=False), QLlamaConfig()
    assert isinstance(case.config, QLlamaConfig)
    assert case.cut == "2 of 32 layers"
    assert replace(case.config, layers=whole.layers) == whole
    assert 0 < case.config.num_cross < case.config.layers
    assert case.config.parameters(case.source, case.target) < 1_000_000_000


def test_the_row_and_the_table_say_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(device="cpu", dtype="float32", batch=1, attention="sdpa", tiny=True, warm=0, rounds=1)
    part = replace(make_case("qllama", tiny=True), cut="3 of 7 layers")
    monkeypatch.setattr(connectors, "make_case", lambda name, tiny: part)
    row = connectors.timed("qllama", args)
    assert row["cut"] == "3 of 7 layers"
    row |= {"name": "qllama", "reference": "plain", "peak_mib": {"ours": None, "reference": None}}
    connectors.show([row], args)
    assert "qllama, 3 of 7 layers" in capsys.readouterr().out


@oracles("internvl_pixel_shuffle")
def test_plain_pixel_shuffle(name: str) -> None:
    oracle = Oracle(name)
    said, x = oracle.config, oracle.tensors["inputs/x"]
    if said["h"] != said["w"]:
        pytest.skip("the plain module works on squares")
    plain = PlainPixelShuffle(said["c"], said["llm_hidden"], round(1 / said["scale_factor"]))
    plain.load_state_dict(oracle.below("weights_internvl/"))
    with torch.no_grad():
        given = plain(x.flatten(1, 2))
    torch.testing.assert_close(given, oracle.tensors["outputs/mlp1_of_v2"], atol=1e-5, rtol=1e-4)


def test_the_interval_holds_one_and_is_as_wide_as_the_noise() -> None:
    assert interval([1.0] * 9, [1.0] * 9) == (1.0, 1.0)
    low, high = interval([1.0, 1.1, 1.2, 1.3, 1.4], [1.0, 1.1, 1.2, 1.3, 1.4])
    assert 1.0 / 1.4 <= low < 1.0 < high <= 1.4


@pytest.mark.parametrize(("ratio", "said"), [(0.8, "faster"), (0.95, "as fast"), (1.05, "as fast"), (1.2, "slower")])
def test_the_verdict_is_against_the_references_own_spread(ratio: float, said: str) -> None:
    assert verdict({"ratio": ratio, "itself": (0.9, 1.1)}) == said
