"""The convolutional and locality connectors against Honeybee, MobileVLM and TokenPacker."""

import math

from einops import rearrange
from oracle_files import Oracle, oracles
from torch import Tensor

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
from isthmus.connectors.deformable import reference_points
from isthmus.connectors.honeybee_mlp import HONEYBEE_MLP_KEYS
from isthmus.connectors.honeybee_resampler import HONEYBEE_RESAMPLER_KEYS
from isthmus.connectors.key_map import KeyMap, load_official
from isthmus.connectors.ldp import LDP_KEYS
from isthmus.connectors.ldp_v2 import LDP_V2_KEYS
from isthmus.connectors.token_packer import TOKEN_PACKER_KEYS
from isthmus.features import Features, FeatureShape, Grid, LLMShape


def square(patches: int) -> Grid:
    side = math.isqrt(patches)
    assert side * side == patches, "the public code works on squares"
    return Grid(1, side, side)


def built(oracle: Oracle, config: ConnectorConfig, source: FeatureShape, out: int, keys: KeyMap) -> Connector:
    connector = config.build(source, LLMShape(embedding_width=out, hidden_width=out, num_layers=1)).eval()
    load_official(connector, keys, oracle.below("weights/"), oracle.name)
    return connector


def check_gradients(oracle: Oracle, connector: Connector, loss: Tensor, keys: KeyMap, prefix: str = "grads/") -> None:
    connector.zero_grad()
    loss.backward()
    oracle.check_gradients(
        dict(keys.to_official({name: weight.grad for name, weight in connector.named_parameters()})), prefix
    )


def honeybee(oracle: Oracle, config: ConnectorConfig, out: int, keys: KeyMap) -> Connector:
    """The connector after its output and, where there are any, its gradients were compared."""
    given = oracle.tensors["inputs/x"]
    first, *levels = [given] if given.dim() == 3 else given.unbind(1)
    grid = square(first.shape[1])
    source = FeatureShape(width=first.shape[-1], grid=grid, level_widths=tuple(level.shape[-1] for level in levels))
    connector = built(oracle, config, source, out, keys)
    tokens = connector(Features(tokens=first, grid=grid, levels=tuple(levels))).tokens
    assert tokens.shape[1] == config.num_tokens(grid)
    oracle.check("outputs/last_hidden_state", tokens)
    check_gradients(oracle, connector, tokens.square().mean(), keys)
    return connector


@oracles("honeybee_cabstractor")
def test_c_abstractor(name: str) -> None:
    with Oracle(name) as oracle:
        said = oracle.config
        config = CAbstractorConfig(
            side=math.isqrt(said["num_query_tokens"]),
            width=said["hidden_size"],
            depth=said["depth"],
            mlp_depth=said["mlp_depth"],
            positions=said["pos_emb"],
            prenorm=said["prenorm"],
            eos_tokens=said["num_eos_tokens"],
        )
        honeybee(oracle, config, said["output_hidden_size"], C_ABSTRACTOR_KEYS)


@oracles("honeybee_dabstractor")
def test_d_abstractor(name: str) -> None:
    with Oracle(name) as oracle:
        said = oracle.config
        side = math.isqrt(said["num_queries"])
        config = DAbstractorConfig(
            side=side,
            width=said["d_model"],
            layers=said["decoder_layers"],
            heads=said["heads"],
            points=said["n_points"],
            ffn_width=said["ffn"],
            pooled={"tgt": "content", "query": "query", "none": "none"}[said["pooled_v_target"]],
            positions=said["pos_emb"],
            activation=said["activation"],
            eos_tokens=said["num_eos_tokens"],
        )
        honeybee(oracle, config, said["output_hidden_size"], D_ABSTRACTOR_KEYS)
        grid = square(said["num_input_tokens"])
        oracle.check("outputs/initial_reference_points", reference_points((grid.rows, grid.columns), side, side))


@oracles("honeybee_mlp")
def test_honeybee_mlp(name: str) -> None:
    with Oracle(name) as oracle:
        said, weights = oracle.config, oracle.below("weights/")
        config = HoneybeeMlpConfig(
            depth=said["depth"],
            prenorm="prenorm.weight" in weights,
            positions="pos_emb" in weights,
            eos_tokens=weights["eos_tokens"].shape[1] if "eos_tokens" in weights else 0,
        )
        honeybee(oracle, config, said["output_hidden_size"], HONEYBEE_MLP_KEYS)


@oracles("honeybee_resampler")
def test_honeybee_resampler(name: str) -> None:
    with Oracle(name) as oracle:
        said, weights = oracle.config, oracle.below("weights/")
        config = HoneybeeResamplerConfig(
            num_queries=said["num_query_tokens"],
            width=said["hidden_size"],
            layers=said["num_hidden_layers"],
            heads=said["num_attention_heads"],
            ffn_width=said["intermediate_size"],
            ffn_norm_eps=said["layer_norm_eps"],
            positions="pos_emb" in weights,
            eos_tokens=said["num_eos_tokens"],
        )
        honeybee(oracle, config, said["output_hidden_size"], HONEYBEE_RESAMPLER_KEYS)


def cases(oracle: Oracle) -> list[str]:
    """`case0/`, `case1/`, ... in order; what such a case was given counts as input."""
    return sorted({key.split("/")[0] + "/" for key in oracle.tensors if key.startswith("case")})


@oracles("mobilevlm_ldp")
def test_ldp(name: str) -> None:
    with Oracle(name) as oracle:
        said = oracle.config
        for case in cases(oracle):
            given = oracle.give(f"{case}x")
            grid = square(given.shape[1])
            source = FeatureShape(width=said["mm_hidden_size"], grid=grid)
            connector = built(oracle, LdpConfig(), source, said["hidden_size"], LDP_KEYS)
            projected = connector.project(given)
            oracle.check(f"{case}mlp", projected)
            maps = rearrange(projected, "views (h w) c -> views h w c", h=grid.rows)
            oracle.check(f"{case}block1", rearrange(maps + connector.same(maps), "views h w c -> views c h w"))
            tokens = connector(Features(tokens=given, grid=grid)).tokens
            oracle.check(f"{case}y", tokens)
            if case == "case0/":
                check_gradients(oracle, connector, tokens.square().mean(), LDP_KEYS)


@oracles("mobilevlm_ldpv2")
def test_ldp_v2(name: str) -> None:
    with Oracle(name) as oracle:
        said = oracle.config
        for case in cases(oracle):
            given = oracle.give(f"{case}x")
            grid = square(given.shape[1])
            source = FeatureShape(width=said["mm_hidden_size"], grid=grid)
            connector = built(oracle, LdpV2Config(), source, said["hidden_size"], LDP_V2_KEYS)
            oracle.check(f"{case}mlp", connector.project(given))
            pooled: list[Tensor] = []
            hook = connector.neighbours.register_forward_pre_hook(lambda _, maps, kept=pooled: kept.append(maps[0]))
            tokens = connector(Features(tokens=given, grid=grid)).tokens
            hook.remove()
            oracle.check(f"{case}pooled", pooled[0].flatten(1, 2))
            oracle.check(f"{case}y", tokens)
            if case == "case0/":
                check_gradients(oracle, connector, tokens.square().mean(), LDP_V2_KEYS)


@oracles("tokenpacker")
def test_token_packer(name: str) -> None:
    with Oracle(name) as oracle:
        said = oracle.config
        given, levels = oracle.tensors["inputs/x"], oracle.tensors["inputs/x_multi"].chunk(said["levels"], dim=-1)
        grid = Grid(1, said["raw_grid"], said["raw_grid"])
        source = FeatureShape(width=said["kv_dim"], grid=grid, level_widths=tuple(level.shape[-1] for level in levels))
        features = Features(tokens=given, grid=grid, levels=levels)
        for factor in said["scale_factors"]:
            config = TokenPackerConfig(factor=factor, width=said["embed_dim"], heads=said["num_heads"])
            connector = built(oracle, config, source, said["hidden_size"], TOKEN_PACKER_KEYS)
            attended: list[tuple[tuple[Tensor, ...], Tensor]] = []
            hook = connector.attention.register_forward_hook(
                lambda _, came, gone, kept=attended: kept.append((came, gone))
            )
            tokens = connector(features).tokens
            hook.remove()
            (came, gone), start = attended[0], f"outputs/scale{factor}/"
            oracle.check(f"{start}query_grid", connector.point_grid(features))
            oracle.check(f"{start}region_keys", rearrange(came[1], "views m s c -> s (m views) c"))
            oracle.check(f"{start}attention_output", rearrange(gone, "views m c -> 1 (m views) c"))
            oracle.check(f"{start}y", tokens)
            check_gradients(oracle, connector, tokens.square().mean(), TOKEN_PACKER_KEYS, f"grads/scale{factor}/")
