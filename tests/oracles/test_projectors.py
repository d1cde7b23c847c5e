"""Patch-wise projectors, pooling and pixel shuffle, feature selection: the numbers of their public implementations."""

import re
from pathlib import Path

import pytest
import torch
from oracle_files import Oracle, oracles
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from isthmus.connectors import (
    AveragePoolConfig,
    Connector,
    ConnectorConfig,
    LinearConfig,
    MlpConfig,
    PixelShuffleConfig,
)
from isthmus.connectors.arrange import FramePool
from isthmus.connectors.average_pool import DECO_KEYS
from isthmus.connectors.channel_concat import ChannelConcatConfig
from isthmus.connectors.identity import IdentityConfig
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.encoders import VisionEncoder
from isthmus.exchange.key_maps import INTERNVL, INTERNVL_NATIVE, LLAVA_LINEAR, LLAVA_MLP
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Plan, VisualTokens


def build(config: ConnectorConfig, width: int, grid: Grid, out: int) -> Connector:
    target = LLMShape(embedding_width=out, hidden_width=out, num_layers=1)
    return config.build(FeatureShape(width=width, grid=grid), target).eval()


def check_gradients(oracle: Oracle, module: nn.Module, keys: KeyMap, output: torch.Tensor) -> None:
    """The gradients of the mean of the squared output, under the official names."""
    output.square().mean().backward()
    found = keys.to_official({name: weight.grad for name, weight in module.named_parameters()})
    whole = {f"{keys.prefix}{key}": value for key, value in found.items()}
    oracle.check_all("grads/", {**found, **whole}.get)


@oracles("llava_projector_identity")
def test_identity(name: str) -> None:
    with Oracle(name) as oracle:
        x = oracle.tensors["inputs/x"]
        grid = Grid(1, 1, x.shape[1])
        connector = build(IdentityConfig(), x.shape[-1], grid, x.shape[-1])
        given = connector(Features(tokens=x, grid=grid)).tokens
        oracle.check("outputs/y", given, atol=0.0, rtol=0.0)


@oracles("llava_projector_linear")
def test_linear(name: str) -> None:
    with Oracle(name) as oracle:
        x = oracle.tensors["inputs/x"]
        grid = Grid(1, 1, x.shape[1])
        connector = build(LinearConfig(), oracle.config["mm_hidden_size"], grid, oracle.config["hidden_size"])
        load_official(connector, LLAVA_LINEAR, oracle.below("weights/"), name)
        given = connector(Features(tokens=x, grid=grid)).tokens
        oracle.check("outputs/y", given)
        check_gradients(oracle, connector, LLAVA_LINEAR, given)


@oracles("llava_projector_mlp2x_gelu")
def test_mlp_and_channel_concatenation(name: str) -> None:
    """The same numbers when the channels come from two encoder layers, and are put side by side by the connector."""
    with Oracle(name) as oracle:
        x, sizes = oracle.tensors["inputs/x"], oracle.config
        kind = re.fullmatch(r"mlp(\d+)x_gelu", sizes["mm_projector_type"])
        assert kind is not None
        grid = Grid(1, 1, x.shape[1])
        connector = build(MlpConfig(depth=int(kind[1])), sizes["mm_hidden_size"], grid, sizes["hidden_size"])
        load_official(connector, LLAVA_MLP, oracle.below("weights/"), name)
        given = connector(Features(tokens=x, grid=grid)).tokens
        oracle.check("outputs/y", given)
        check_gradients(oracle, connector, LLAVA_MLP, given)
        first = x.shape[-1] // 3 + 1
        source = FeatureShape(width=first, grid=grid, level_widths=(x.shape[-1] - first,))
        target = LLMShape(embedding_width=sizes["hidden_size"], hidden_width=1, num_layers=1)
        joining = ChannelConcatConfig(depth=int(kind[1])).build(source, target)
        load_official(joining, LLAVA_MLP, oracle.below("weights/"), name)
        apart = Features(tokens=x[..., :first], grid=grid, levels=(x[..., first:],))
        oracle.check("outputs/y", joining(apart).tokens)


@oracles("deco_avgpool")
def test_average_pool(name: str) -> None:
    with Oracle(name) as oracle:
        x, sizes = oracle.tensors["inputs/x"], oracle.config
        side, pooled = round(sizes["num_input_tokens"] ** 0.5), round(sizes["query_num"] ** 0.5)
        grid = Grid(1, side, side)
        config = AveragePoolConfig(side=pooled, depth=sizes["layer_num"])
        connector = build(config, sizes["mm_hidden_size"], grid, sizes["llm_hidden_size"])
        state = {key.removeprefix(DECO_KEYS.prefix): value for key, value in oracle.below("weights/").items()}
        load_official(connector, DECO_KEYS, state, name)
        seen: list[torch.Tensor] = []
        connector.project.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        given = connector(Features(tokens=x, grid=grid)).tokens
        oracle.check("outputs/pooled", seen[0])
        oracle.check("outputs/y", given)
        check_gradients(oracle, connector, DECO_KEYS, given)


@oracles("internvl_pixel_shuffle")
def test_pixel_shuffle(name: str) -> None:
    with Oracle(name) as oracle:
        x, sizes = oracle.tensors["inputs/x"], oracle.config
        rows, columns, width = x.shape[1:]
        grid, factor = Grid(1, rows, columns), round(1 / sizes["scale_factor"])
        for key in oracle.tensors:
            if key.startswith("weights_"):
                oracle.give(key)
        internvl = {key.removeprefix("mlp1."): value for key, value in oracle.below("weights_internvl/").items()}
        for order in ("v1", "v2"):
            config = PixelShuffleConfig(factor=factor, order=order)
            connector = build(config, width, grid, sizes["llm_hidden"])
            for keys, state in ((INTERNVL, internvl), (INTERNVL_NATIVE, oracle.below("weights_transformers/"))):
                load_official(connector, keys, state, name)
                given = connector(Features(tokens=x.flatten(1, 2), grid=grid)).tokens
                oracle.check(f"outputs/mlp1_of_{order}", given)
            connector.project = nn.Sequential(nn.Identity())
            high, wide = rows // factor, columns // factor
            shape = (wide, high) if order == "v1" else (high, wide)

            def fold(
                maps: torch.Tensor, shape: tuple[int, int] = shape, connector: Connector = connector
            ) -> torch.Tensor:
                tokens = maps.float().flatten(1, 2)
                return connector(Features(tokens=tokens, grid=grid)).tokens.unflatten(1, shape)

            oracle.check(f"outputs/pixel_shuffle_{order}", fold(x), atol=0.0, rtol=0.0)
            places = torch.arange(rows * columns).reshape(1, rows, columns, 1).expand(-1, -1, -1, width)
            channels = torch.arange(width).expand(1, rows, columns, -1)
            oracle.check(f"outputs/source_token_{order}", fold(places)[0], atol=0.0, rtol=0.0)
            oracle.check(f"outputs/source_channel_{order}", fold(channels)[0], atol=0.0, rtol=0.0)


@oracles("llava_feature_select")
def test_feature_selection(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle, torch.no_grad():
        kept = set(CLIPVisionConfig().to_dict()) - {"transformers_version", "model_type"}
        config = CLIPVisionConfig(**{key: value for key, value in oracle.config.items() if key in kept})
        tower = CLIPVisionModel(config)
        own = tower.state_dict()
        state = {
            key if key in own else key.removeprefix("vision_model."): v for key, v in oracle.below("weights/").items()
        }
        tower.load_state_dict(state)
        tower.save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
        # What is left of the pixels beyond the last whole patch is never seen.
        size = oracle.config["image_size"] // oracle.config["patch_size"] * oracle.config["patch_size"]
        pixels = oracle.tensors["inputs/pixel_values"][..., :size, :size]

        def encode(layer: int, *, whole: bool, norm: bool = False) -> torch.Tensor:
            encoder = VisionEncoder(
                name=str(tmp_path), image_size=size, layers=(layer,), class_token=whole, final_norm=norm
            )
            return encoder.build()(pixels).tokens

        for key in oracle.tensors:
            if found := re.fullmatch(r"outputs/hidden_states_(\d+)", key):
                oracle.check(key, encode(int(found[1]), whole=True))
            if found := re.fullmatch(r"outputs/select_(-?\d+)_(cls_)?patch", key):
                oracle.check(key, encode(int(found[1]), whole=found[2] is not None))
        oracle.check("outputs/last_hidden_state", encode(-1, whole=True))
        oracle.check("outputs/pooler_output", encode(-1, whole=True, norm=True)[:, 0])


@oracles("llava_onevision_video_pool")
def test_video_pooling(name: str) -> None:
    with Oracle(name) as oracle:
        x, sizes = oracle.tensors["inputs/x"], oracle.config
        side = sizes["side"]
        plan = Plan(size=(1, 1), tiles=Grid(1, 1, len(x)), views=range(len(x)), tokens=Grid(1, side, side))
        target = LLMShape(embedding_width=x.shape[-1], hidden_width=1, num_layers=1)
        for key, mode in {
            "average": "average",
            "max": "max",
            "bilinear": "bilinear",
            "transformers": "bilinear",
        }.items():
            # transformers halves the sides whatever stride is asked for.
            stride = 2 if key == "transformers" else sizes["stride"]
            config = FramePool(stride=stride, mode=mode)
            placed = config.build(target)(VisualTokens(x), (plan,))
            assert placed.lengths == (config.num_tokens(plan, side * side),)
            oracle.check(f"outputs/{key}", placed.tokens.unflatten(0, (len(x), -1)))


def test_a_frame_pool_ends_a_video_with_its_newline_and_needs_a_map() -> None:
    plan = Plan(size=(1, 1), tiles=Grid(1, 1, 2), views=range(2), tokens=Grid(1, 3, 3))
    config, target = FramePool(newline=True), LLMShape(embedding_width=2, hidden_width=2, num_layers=1)
    placed = config.build(target)(VisualTokens(torch.zeros(2, 9, 2)), (plan,))
    assert placed.lengths == (9,) == (config.num_tokens(plan, 9),)
    assert placed.tokens.abs().sum(dim=1).nonzero().flatten().tolist() == [8]
    with pytest.raises(ValueError, match=r"lie as \(1, 1, 9\).*keeps a map"):
        config.pooled(Grid(1, 1, 9))
    with pytest.raises(ValueError, match="leaves nothing"):
        FramePool(stride=4, mode="max").pooled(Grid(1, 3, 3))
