"""The cross-attention resamplers against the numbers of their public implementations."""

import torch
from oracle_files import Oracle, oracles
from torch import Tensor, nn

from isthmus.connectors import Idefics2Config, MatryoshkaConfig, PerceiverConfig, QwenVlConfig
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.matryoshka import MATRYOSHKA_KEYS, Matryoshka
from isthmus.connectors.perceiver import PERCEIVER_KEYS, PerceiverResampler
from isthmus.connectors.qwen_vl import QWEN_VL_KEYS, QwenVl
from isthmus.features import Features, FeatureShape, Grid, LLMShape

HALF_ULP = 2.0**-11
"""A table that was rounded to float16 is this near to the exact one, relative to 1."""


def target(width: int) -> LLMShape:
    return LLMShape(embedding_width=width, hidden_width=width, num_layers=1)


def check_gradients(oracle: Oracle, module: nn.Module, keys: KeyMap, output: Tensor) -> None:
    """The gradients of the mean of the squared output, under the official names.

    Some are so small that an absolute bound says little, so the direction and length of each are compared too, unless
    it is rounding noise, as that of a bias that shifts all keys alike.
    """
    output.square().mean().backward()
    found = keys.to_official({name: weight.grad for name, weight in module.named_parameters()})
    for key, wanted in oracle.below("grads/").items():
        oracle.check(f"grads/{key}", found.get(key))
        length = float(wanted.norm())
        assert length < 1e-4 or float((found[key] - wanted).norm()) < 1e-2 * length, f"{oracle}: grads/{key}"


@oracles("open_flamingo_perceiver")
def test_perceiver(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, x = oracle.config, oracle.tensors["inputs/x"]
        config = PerceiverConfig(
            num_latents=sizes["num_latents"],
            layers=sizes["depth"],
            heads=sizes["heads"],
            head_width=sizes["dim_head"],
            ffn_factor=sizes["ff_mult"],
            max_frames=sizes["max_num_frames"] or 0,
            max_media=sizes["max_num_media"] or 0,
        )
        resampler = PerceiverResampler(sizes["dim"], config=config)
        load_official(resampler, PERCEIVER_KEYS, oracle.below("weights/"), name)
        batch, media, frames, patches, _ = x.shape
        features = Features(tokens=x.flatten(2, 3).flatten(0, 1), grid=Grid(frames, 1, patches))
        latents = resampler(features, torch.arange(media).repeat(batch))
        oracle.check("outputs/y", latents.unflatten(0, (batch, media)))
        check_gradients(oracle, resampler, PERCEIVER_KEYS, latents)


@oracles("idefics2_perceiver")
def test_idefics2(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, x = oracle.config, oracle.tensors["inputs/x"]
        ours = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu-tanh"}
        config = Idefics2Config(
            num_latents=sizes["resampler_n_latents"],
            layers=sizes["resampler_depth"],
            heads=sizes["resampler_n_heads"],
            kv_heads=sizes["num_key_value_heads"],
            head_width=sizes["resampler_head_dim"],
            project_width=sizes["text_intermediate"],
            project_activation=ours[sizes["modality_act"]],
            activation=ours[sizes["perceiver_act"]],
            norm_eps=sizes["rms_norm_eps"],
        )
        grid = Grid(1, 1, x.shape[1])
        source = FeatureShape(width=sizes["vision_hidden"], grid=grid)
        connector = config.build(source, target(sizes["hidden_size"]))
        load_official(connector, IDEFICS2_KEYS, oracle.below("weights/"), name)
        mask = oracle.tensors.get("inputs/attention_mask")
        features = Features(tokens=x, grid=grid, valid=None if mask is None else mask.bool())
        oracle.check("outputs/modality_projection", connector.project(x))
        tokens = connector(features).tokens
        oracle.check("outputs/y", tokens)
        check_gradients(oracle, connector, IDEFICS2_KEYS, tokens)


@oracles("qwen_vl_resampler")
def test_qwen_vl(name: str) -> None:
    with Oracle(name) as oracle:
        sizes = oracle.config
        width = sizes["embed_dim"]
        config = QwenVlConfig(side=sizes["grid_size"], head_width=width // sizes["num_heads"])
        source = FeatureShape(width=sizes["kv_dim"], grid=Grid(1, 1, 1))
        connector = config.build(source, target(width))
        assert isinstance(connector, QwenVl)
        assert connector.attention.heads == sizes["num_heads"]
        torch.testing.assert_close(connector.positions, oracle.tensors["weights/pos_embed"], atol=1e-5, rtol=1e-4)
        outside = ("ln_post.weight", "ln_post.bias", "proj")
        weights = {key if key in outside else f"attn_pool.{key}": one for key, one in oracle.below("weights/").items()}
        load_official(connector, QWEN_VL_KEYS, weights, name)
        for case, says in oracle.info["cases"].items():
            x, side = oracle.give(f"{case}/x"), says["kv_grid"]
            grid = Grid(1, side, side)
            oracle.check(f"{case}/kv_pos_embed", connector.key_positions(grid))
            oracle.check(f"{case}/attn_pool_output", connector.pool(x, grid))
            oracle.check(f"{case}/output", connector(Features(tokens=x, grid=grid)).tokens)


@oracles("mqt_resampler")
def test_matryoshka(name: str) -> None:
    with Oracle(name) as oracle:
        sizes, x = oracle.config, oracle.tensors["inputs/x"]
        width = sizes["kv_dim"]
        config = MatryoshkaConfig(
            tokens=sizes["num_queries"], side=sizes["grid_size"], head_width=width // sizes["num_heads"]
        )
        grid = Grid(1, *sizes["tgt_size_hw"])
        connector = config.build(FeatureShape(width=width, grid=grid), target(sizes["embed_dim"]))
        assert isinstance(connector, Matryoshka)
        torch.testing.assert_close(connector.positions, oracle.tensors["weights/pos_embed"], atol=HALF_ULP, rtol=0)
        load_official(connector, MATRYOSHKA_KEYS, oracle.below("weights/"), name)
        oracle.check("outputs/kv_pos_embed", connector.key_positions(grid))
        oracle.check("outputs/attention_weights", connector.weights(grid))
        features = Features(tokens=x, grid=grid)
        oracle.check("outputs/first_stage", connector(features).tokens)
        for tokens in sizes["m"]:
            connector.use(tokens)
            oracle.check(f"outputs/m{tokens}", connector(features).tokens)
        connector.use(sizes["m_of_grads"])
        check_gradients(oracle, connector, MATRYOSHKA_KEYS, connector(features).tokens)
