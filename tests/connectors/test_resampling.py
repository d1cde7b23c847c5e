"""What is particular to the resamplers that look at the patches with cross-attention."""

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isthmus.connectors import (
    AttentionPoolConfig,
    ConnectorConfig,
    Idefics2Config,
    MatryoshkaConfig,
    PerceiverConfig,
    QwenVlConfig,
)
from isthmus.connectors.attention_pool import AttentionPool
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.key_map import load_official
from isthmus.connectors.matryoshka import MATRYOSHKA_KEYS, Matryoshka
from isthmus.connectors.perceiver import PERCEIVER_KEYS, Perceiver
from isthmus.connectors.positions import resize_table, sincos_table
from isthmus.connectors.qwen_vl import QWEN_VL_KEYS, QwenVl
from isthmus.features import Features, FeatureShape, Grid, LLMShape

SOURCE = FeatureShape(width=8, grid=Grid(1, 2, 3))
TARGET = LLMShape(embedding_width=12, hidden_width=12, num_layers=1)


def built(config: ConnectorConfig, source: FeatureShape = SOURCE) -> Any:
    torch.manual_seed(1)
    return config.build(source, TARGET).eval()


def noise(count: int, grid: Grid, width: int = 8) -> Features:
    generator = torch.Generator().manual_seed(2)
    return Features(tokens=torch.randn(count, grid.size, width, generator=generator), grid=grid)


def test_the_first_half_of_a_position_says_the_column() -> None:
    table = sincos_table(2, 4)
    sine, cosine = 0.84147098, 0.54030231
    rows = [[0.0, 1.0, 0.0, 1.0], [sine, cosine, 0.0, 1.0], [0.0, 1.0, sine, cosine], [sine, cosine, sine, cosine]]
    torch.testing.assert_close(table, torch.tensor(rows))


def test_a_width_without_quarters_has_no_positions() -> None:
    with pytest.raises(ValueError, match=r"divides by 4, but it is 6.*AttentionPoolConfig"):
        sincos_table(2, 6)


def test_every_frame_has_the_same_positions() -> None:
    table = sincos_table(2, 4)
    assert torch.equal(resize_table(table, 2, Grid(2, 2, 2)), torch.cat([table, table]))
    assert resize_table(table, 2, Grid(1, 1, 4)).shape == (4, 4)
    assert not torch.allclose(resize_table(table, 2, Grid(1, 1, 4)), table)


def test_idefics2_equals_transformers() -> None:
    from transformers import Idefics2Config as Native
    from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector

    perceiver = Idefics2PerceiverConfig(
        hidden_size=12,
        resampler_n_latents=3,
        resampler_depth=2,
        resampler_n_heads=4,
        resampler_head_dim=5,
        num_key_value_heads=2,
    )
    text = {"model_type": "mistral", "hidden_size": 12, "intermediate_size": 10, "hidden_act": "gelu"}
    native = Native(
        perceiver_config=perceiver.to_dict(),
        vision_config=Idefics2VisionConfig(hidden_size=8).to_dict(),
        text_config=text,
    )
    torch.manual_seed(3)
    theirs = Idefics2Connector(native).eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)
    config = Idefics2Config(
        num_latents=3, layers=2, heads=4, kv_heads=2, head_width=5, project_width=10, project_activation="gelu"
    )
    ours = built(config)
    load_official(ours, IDEFICS2_KEYS, theirs.state_dict(), "a random model")
    features = noise(3, SOURCE.grid)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [False, True] * 3])
    for mask in (torch.ones(3, 6, dtype=torch.bool), valid):
        wanted = theirs(features.tokens, attention_mask=mask.long())
        found = ours(dataclasses.replace(features, valid=mask)).tokens
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    back = IDEFICS2_KEYS.to_official(ours.state_dict())
    assert set(back) == set(theirs.state_dict())
    assert all(torch.equal(value, back[key]) for key, value in theirs.state_dict().items())


def test_attention_pool_is_torch_multi_head_attention() -> None:
    pool = built(AttentionPoolConfig(num_queries=5, width=16, heads=4))
    assert isinstance(pool, AttentionPool)
    reference = nn.MultiheadAttention(16, 4, kdim=8, vdim=8, batch_first=True)
    parts = {
        "q_proj_weight": pool.attention.query.weight,
        "k_proj_weight": pool.attention.key.weight,
        "v_proj_weight": pool.attention.value.weight,
        "out_proj.weight": pool.attention.out.weight,
    }
    for weight in pool.parameters():
        nn.init.normal_(weight, std=0.5)
    biases = [pool.attention.query.bias, pool.attention.key.bias, pool.attention.value.bias]
    reference.load_state_dict(parts | {"in_proj_bias": torch.cat(biases), "out_proj.bias": pool.attention.out.bias})
    features = noise(2, Grid(2, 2, 3))
    seen = pool.norm_patches(features.tokens)
    queries = pool.norm_queries(pool.queries).expand(2, -1, -1)
    pooled = reference(queries, seen, seen, need_weights=False)[0]
    torch.testing.assert_close(pool(features).tokens, pool.project(pooled), atol=1e-5, rtol=1e-4)


def test_attention_pool_does_not_feel_the_order_of_patches() -> None:
    pool, features = built(AttentionPoolConfig(num_queries=5, width=16, heads=4)), noise(1, SOURCE.grid)
    turned = dataclasses.replace(features, tokens=features.tokens.flip(1))
    torch.testing.assert_close(pool(turned).tokens, pool(features).tokens, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", [QwenVlConfig(side=2), MatryoshkaConfig(side=2, tokens=3)])
def test_positions_tell_the_order_of_patches(config: ConnectorConfig) -> None:
    connector, features = built(config), noise(1, SOURCE.grid)
    for weight in connector.parameters():
        nn.init.normal_(weight, std=0.5)
    turned = dataclasses.replace(features, tokens=features.tokens.flip(1))
    assert not torch.allclose(connector(turned).tokens, connector(features).tokens, atol=1e-3)


def test_perceiver_tells_frames_and_images_apart_when_asked() -> None:
    clip = Grid(2, 1, 3)
    features = noise(2, clip)
    swapped = dataclasses.replace(features, tokens=features.tokens.roll(3, 1))
    plain = built(PerceiverConfig(num_latents=2, layers=1, heads=2, head_width=4))
    torch.testing.assert_close(plain(swapped).tokens, plain(features).tokens, atol=1e-5, rtol=1e-4)
    told = built(PerceiverConfig(num_latents=2, layers=1, heads=2, head_width=4, max_frames=3, max_media=2))
    assert not torch.allclose(told(swapped).tokens, told(features).tokens, atol=1e-3)
    numbered = told(features, torch.tensor([0, 1])).tokens
    assert torch.equal(numbered[0], told(features).tokens[0])
    assert not torch.allclose(numbered[1], told(features).tokens[1], atol=1e-3)


def test_perceiver_has_exact_gelu() -> None:
    """The oracles are at sizes where the tanh approximation differs by less than their tolerance."""
    perceiver = built(PerceiverConfig(layers=2))
    assert [part.approximate for part in perceiver.modules() if isinstance(part, nn.GELU)] == ["none", "none"]


def test_perceiver_refuses_what_it_has_no_embedding_for() -> None:
    config = PerceiverConfig(num_latents=2, layers=1, heads=2, head_width=4, max_frames=2, max_media=2)
    with pytest.raises(ValueError, match=r"no embedding for frame 3.*max_frames=3.*max_frames=0"):
        config.build(dataclasses.replace(SOURCE, grid=Grid(3, 1, 2)), TARGET)
    with pytest.raises(ValueError, match=r"no embedding for image 3 of a prompt.*max_media=3"):
        built(config)(noise(2, SOURCE.grid), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"width 8, but the language model reads 12.*project=True"):
        PerceiverConfig(project=False).build(SOURCE, TARGET)
    with pytest.raises(ValueError, match=r"max_frames=-1"):
        PerceiverConfig(max_frames=-1)


def test_matryoshka_gives_any_number_of_tokens_from_one_set_of_weights() -> None:
    connector, features = built(MatryoshkaConfig(side=3, tokens=9)), noise(2, SOURCE.grid)
    whole = connector(features).tokens
    for tokens in range(1, 10):
        connector.use(tokens)
        assert connector(features).tokens.shape[1] == tokens
        torch.testing.assert_close(connector(features).tokens, whole[:, :tokens], atol=1e-6, rtol=1e-5)
    fewer = built(MatryoshkaConfig(side=3, tokens=4))
    fewer.load_state_dict(connector.state_dict())
    torch.testing.assert_close(fewer(features).tokens, whole[:, :4], atol=1e-6, rtol=1e-5)


def test_matryoshka_refuses_more_tokens_than_queries() -> None:
    with pytest.raises(ValueError, match=r"tokens=10, side=3.*has 9 queries.*from 1 to 9"):
        MatryoshkaConfig(side=3, tokens=10)
    connector = built(MatryoshkaConfig(side=3, tokens=9))
    assert isinstance(connector, Matryoshka)
    with pytest.raises(ValueError, match=r"from 1 to 9"):
        connector.use(0)
    assert connector.tokens == 9


def test_matryoshka_draws_as_the_released_code_does() -> None:
    config, generator = MatryoshkaConfig(), random.Random(0)
    drawn = [config.draw_from(generator) for _ in range(12)]
    assert drawn == [198, 216, 22, 134, 250, 208, 156, 246, 184, 112, 72, 146]
    assert MatryoshkaConfig(side=1, tokens=1).draw_from(generator) == 1


def test_matryoshka_draws_by_seed_and_step() -> None:
    config = MatryoshkaConfig(side=4, tokens=16)
    steps = [config.draw(7, step) for step in range(400)]
    assert steps == [config.draw(7, step) for step in range(400)]
    assert set(steps) == {2, 4, 6, 8, 10, 12, 14, 16}
    assert steps != [config.draw(8, step) for step in range(400)]


def test_heads_must_divide_the_width() -> None:
    twenty = dataclasses.replace(SOURCE, width=20)
    with pytest.raises(ValueError, match=r"MatryoshkaConfig\(head_width=3\) gives 6 heads.*width of 20.*head_width=2"):
        MatryoshkaConfig(head_width=3).build(twenty, TARGET)
    with pytest.raises(ValueError, match=r"QwenVlConfig\(head_width=2\) gives 7 heads.*width of 15.*head_width=1"):
        QwenVlConfig(head_width=2).build(SOURCE, LLMShape(embedding_width=15, hidden_width=15, num_layers=1))
    assert built(QwenVlConfig(side=2)).attention.heads == 1
    assert built(QwenVlConfig(side=2, head_width=3)).attention.heads == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: PerceiverConfig(num_latents=0),
        lambda: PerceiverConfig(layers=0),
        lambda: Idefics2Config(heads=3, kv_heads=2),
        lambda: Idefics2Config(project_width=0),
        lambda: AttentionPoolConfig(width=10, heads=3),
        lambda: QwenVlConfig(side=0),
        lambda: MatryoshkaConfig(side=0),
    ],
)
def test_sizes_that_make_no_module_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"Config\(.*(must be 1 or more|does not divide by)"):
        make()


def official(name: str) -> tuple[nn.Module, Any, dict[str, Tensor]]:
    """A small connector, its key map, and official weights that fit."""
    made: dict[str, tuple[nn.Module, Any]] = {
        "perceiver": (built(PerceiverConfig(num_latents=2, layers=1, max_media=1)).resampler, PERCEIVER_KEYS),
        "qwen-vl": (built(QwenVlConfig(side=2)), QWEN_VL_KEYS),
        "matryoshka": (built(MatryoshkaConfig(side=2, tokens=2)), MATRYOSHKA_KEYS),
        "idefics2": (built(Idefics2Config(num_latents=2, layers=1, project_width=4)), IDEFICS2_KEYS),
    }
    module, keys = made[name]
    return module, keys, keys.to_official(module.state_dict())


@pytest.mark.parametrize("name", ["perceiver", "qwen-vl", "matryoshka", "idefics2"])
def test_official_weights_load_strictly_and_come_back(name: str) -> None:
    module, keys, state = official(name)
    changed = {key: torch.randn_like(value) for key, value in state.items()}
    load_official(module, keys, changed, "a file")
    back = keys.to_official(module.state_dict())
    assert list(back) == list(state)
    assert all(torch.equal(back[key], changed[key]) for key in back)
    first, *_, last = changed
    broken = {key: value for key, value in changed.items() if key != first} | {"odd": state[first]}
    broken[last] = broken[last][..., None]
    with pytest.raises(ValueError, match="official weights of a file") as refused:
        load_official(module, keys, broken, "a file")
    assert f"1 missing: {first}" in str(refused.value)
    assert "1 unknown: odd" in str(refused.value)
    assert f"1 of another shape: {last} is" in str(refused.value)
    assert all(torch.equal(value, back[key]) for key, value in keys.to_official(module.state_dict()).items())


def test_without_projection_the_adapters_end_where_the_papers_count() -> None:
    connector = built(QwenVlConfig(side=2, project=False))
    assert isinstance(connector, QwenVl)
    assert not any(key.startswith(("norm.", "project.")) for key in connector.state_dict())
    plain = built(PerceiverConfig(num_latents=2, layers=1, project=False), dataclasses.replace(SOURCE, width=12))
    assert isinstance(plain, Perceiver)
    features = noise(1, SOURCE.grid, width=12)
    assert torch.equal(plain(features).tokens, plain.resampler(features))


PAGES = Path(__file__).parents[2] / "docs" / "connectors"


@pytest.mark.parametrize(
    ("page", "first"),
    [
        ("perceiver", "64 67217408 16341008384"),
        ("idefics2", "64 743219200 1080843304960"),
        ("attention-pool", "144 9073152 6063980544"),
        ("qwen-vl", "256 91791360 112742891520"),
        ("matryoshka", "256 8660992 6241124352"),
    ],
)
def test_the_example_of_its_page_prints_its_costs(page: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 1
    exec(compile(blocks[0], f"{page}.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == first


@pytest.mark.parametrize(
    "config",
    [
        PerceiverConfig(num_latents=6),
        Idefics2Config(num_latents=6),
        AttentionPoolConfig(num_queries=6),
        MatryoshkaConfig(tokens=6),
        QwenVlConfig(side=2),
    ],
)
def test_tokens_are_a_list_even_where_there_are_as_many_as_patches(config: ConnectorConfig) -> None:
    assert config.token_grid(Grid(1, 2, 2)).rows == config.token_grid(Grid(1, 2, 3)).rows == 1
