"""Promises that every connector in the list keeps: a new one is tested by being listed."""

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from isthmus.config import from_json, to_json
from isthmus.connectors import CONNECTORS, Connector, ConnectorConfig
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens
from isthmus.weights import load_strict

SMALL = {
    "q-former": {"num_queries": 5, "width": 16, "layers": 3, "heads": 2, "ffn_width": 24},
    "qllama": {"num_queries": 5, "width": 16, "layers": 3, "heads": 2, "ffn_width": 24},
    "perceiver": {"num_latents": 5, "layers": 2, "heads": 2, "head_width": 6, "max_frames": 2, "max_media": 1},
    "idefics2": {"num_latents": 5, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 6, "project_width": 24},
    "attention-pool": {"num_queries": 5, "width": 16, "heads": 2},
    "qwen-vl": {"side": 3, "head_width": 14},
    "matryoshka": {"side": 3, "tokens": 5, "head_width": 10},
    "c-abstractor": {"side": 5, "width": 16, "depth": 1},
    "d-abstractor": {"side": 3, "width": 16, "layers": 2, "heads": 4, "ffn_width": 24},
    "honeybee-resampler": {"num_queries": 5, "width": 16, "layers": 2, "heads": 2, "ffn_width": 24},
    "token-packer": {"width": 16, "heads": 4},
}
"""Only connectors whose defaults are too large for a test stand here."""

SOURCE = FeatureShape(width=20, grid=Grid(1, 12, 12))
TARGET = LLMShape(embedding_width=28, hidden_width=28, num_layers=2)
NAMES = list(CONNECTORS)
SKIP_PADDING = ("q-former", "qllama", "perceiver", "idefics2", "attention-pool", "qwen-vl", "honeybee-resampler")
"""Connectors whose tokens look at the patches, so that padded patches can be left out."""
READ_LEVELS = ("token-packer",)
"""Connectors that read every layer the encoder gives."""


def make(name: str) -> tuple[ConnectorConfig, Connector]:
    config = dataclasses.replace(CONNECTORS[name](), **SMALL.get(name, {}))
    torch.manual_seed(7)
    return config, config.build(SOURCE, TARGET).eval()


def views(count: int, grid: Grid = SOURCE.grid, width: int = SOURCE.width) -> Features:
    generator = torch.Generator().manual_seed(3)
    return Features(tokens=torch.randn(count, grid.size, width, generator=generator), grid=grid)


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_promised_tokens_of_the_embedding_width(name: str) -> None:
    config, connector = make(name)
    given = connector(views(3))
    assert isinstance(given, VisualTokens)
    assert given.tokens.shape == (3, config.num_tokens(SOURCE.grid), 28)


@pytest.mark.parametrize("name", NAMES)
def test_views_of_a_batch_do_not_touch(name: str) -> None:
    _, connector = make(name)
    batch = views(3)
    together = connector(batch).tokens
    for row in range(3):
        alone = connector(Features(tokens=batch.tokens[row : row + 1], grid=batch.grid)).tokens
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)
    changed = batch.tokens.clone()
    changed[1] = changed[1].flip(-1)
    again = connector(Features(tokens=changed, grid=batch.grid)).tokens
    assert torch.equal(again[0], together[0])
    assert not torch.allclose(again[1], together[1])


@pytest.mark.parametrize("name", NAMES)
def test_every_patch_can_be_seen(name: str) -> None:
    _, connector = make(name)
    tokens = views(1).tokens.requires_grad_()
    connector(Features(tokens=tokens, grid=SOURCE.grid)).tokens.square().sum().backward()
    assert tokens.grad is not None
    assert bool((tokens.grad.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    _, connector = make(name)
    generator = torch.Generator().manual_seed(5)
    connector.train()
    answer = connector(views(2)).tokens
    (answer * torch.randn(answer.shape, generator=generator)).sum().backward()
    still = [
        key for key, weight in connector.named_parameters() if weight.grad is None or not bool((weight.grad != 0).any())
    ]
    assert [key for key in still if not key.endswith("key.bias")] == []  # softmax does not feel the bias of keys


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_is_equal(name: str, tmp_path) -> None:
    config, connector = make(name)
    save_file(connector.state_dict(), tmp_path / "connector.safetensors")
    other = config.build(SOURCE, TARGET).eval()
    assert not torch.equal(other(views(1)).tokens, connector(views(1)).tokens)
    load_strict(other, load_file(tmp_path / "connector.safetensors"), "the saved connector")
    assert torch.equal(other(views(1)).tokens, connector(views(1)).tokens)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_build_equal_weights(name: str) -> None:
    first, second = make(name)[1].state_dict(), make(name)[1].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(name: str, dtype: torch.dtype) -> None:
    _, connector = make(name)
    batch = views(2)
    half = copy.deepcopy(connector).to(dtype)(Features(tokens=batch.tokens.to(dtype), grid=batch.grid)).tokens
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), connector(batch).tokens, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("small", [True, False])
def test_parameters_and_flops_are_the_formulas(name: str, small: bool) -> None:
    """On the meta device, so that the defaults count too, whatever their size."""
    config = dataclasses.replace(CONNECTORS[name](), **(SMALL.get(name, {}) if small else {}))
    with torch.device("meta"):
        connector = config.build(SOURCE, TARGET).eval()
        tokens = torch.empty(1, SOURCE.grid.size, SOURCE.width)
    with FlopCounterMode(display=False) as counter:
        connector(Features(tokens=tokens, grid=SOURCE.grid))
    assert counter.get_total_flops() == config.flops(SOURCE, TARGET)
    assert sum(weight.numel() for weight in connector.parameters()) == config.parameters(SOURCE, TARGET)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_frames_works(name: str) -> None:
    config, _ = make(name)
    clip = Grid(2, 6, 12)
    source = dataclasses.replace(SOURCE, grid=clip)
    connector = config.build(source, TARGET).eval()
    assert connector(views(1, clip)).tokens.shape[1] == config.num_tokens(clip)


@pytest.mark.parametrize("name", NAMES)
def test_another_width_is_refused_with_the_way_out(name: str) -> None:
    _, connector = make(name)
    with pytest.raises(ValueError, match=r"width 20, but width 24 came.*encoder\.shape\(\)"):
        connector(views(1, width=24))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_LEVELS])
def test_layers_that_would_be_ignored_are_refused(name: str) -> None:
    config, _ = make(name)
    with pytest.raises(ValueError, match=r"gives 3 layers.*reads one.*layers=\(-1,\)"):
        config.build(dataclasses.replace(SOURCE, level_widths=(20, 20)), TARGET)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "q-former"])
def test_a_class_token_that_would_be_ignored_is_refused(name: str) -> None:
    config, _ = make(name)
    with pytest.raises(ValueError, match=r"1 class or register tokens.*class_token=False"):
        config.build(dataclasses.replace(SOURCE, prefix=1), TARGET)


@pytest.mark.parametrize("name", SKIP_PADDING)
def test_padding_is_not_looked_at(name: str) -> None:
    _, connector = make(name)
    batch = views(2)
    valid = torch.ones(2, SOURCE.grid.size, dtype=torch.bool)
    valid[1, 100:] = False
    tokens = batch.tokens.clone()
    tokens[1, 100:] = 50.0
    given = connector(dataclasses.replace(batch, valid=valid)).tokens
    again = connector(dataclasses.replace(batch, tokens=tokens, valid=valid)).tokens
    assert torch.equal(given, again)
    whole = connector(batch).tokens
    torch.testing.assert_close(given[0], whole[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given[1], whole[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SKIP_PADDING])
def test_padding_that_would_become_tokens_is_refused(name: str) -> None:
    _, connector = make(name)
    padded = dataclasses.replace(views(1), valid=torch.ones(1, SOURCE.grid.size, dtype=torch.bool))
    with pytest.raises(ValueError, match="padded features"):
        connector(padded)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_reads_back_from_json(name: str) -> None:
    config, _ = make(name)
    assert from_json(to_json(config), {type(config).__name__: type(config)}) == config


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_comes_from(name: str) -> None:
    import sys

    told = sys.modules[CONNECTORS[name].__module__].__doc__
    assert told is not None
    assert "Source:" in told
    assert "arXiv:" in told
    assert "Checked against:" in told
