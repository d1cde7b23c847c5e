"""Promises that every connector in the list keeps: a new one is tested by being listed."""

import copy
import dataclasses
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from isthmus.config import from_json, to_json
from isthmus.connectors import (
    CONNECTORS,
    Connector,
    ConnectorConfig,
    IdentityConfig,
    PerceiverConfig,
    QFormerConfig,
    WindowedQFormerConfig,
)
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Text, VisualTokens
from isthmus.weights import load_strict

FEW = QFormerConfig(num_queries=5, width=16, layers=3, heads=2, ffn_width=24)
SMALL = {
    "instruct-q-former": {
        "qformer": dataclasses.replace(FEW, text=True, vocabulary=50, positions=9),
        "max_text_tokens": 6,
    },
    "video-q-former": {"image": dataclasses.replace(FEW, layers=2), "num_queries": 4},
    "audio-q-former": {"num_queries": 5, "width": 16, "heads": 2, "ffn_width": 24},
    "windowed-streams": {"projector": WindowedQFormerConfig(query_side=3, window_side=6, head_width=10, ffn_width=24)},
    "windowed-q-former": {"query_side": 3, "window_side": 6, "head_width": 10, "ffn_width": 24},
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
    "gated-cross-attention": {
        "resampler": PerceiverConfig(num_latents=5, layers=2, heads=2, head_width=6, project=False),
        "heads": 2,
        "head_width": 6,
    },
}
"""Only connectors whose defaults are too large for a test stand here."""

SOURCE = FeatureShape(width=20, grid=Grid(1, 12, 12))
TARGET = LLMShape(embedding_width=28, hidden_width=28, num_layers=2)
NAMES = list(CONNECTORS)
SKIP_PADDING = (
    "q-former",
    "qllama",
    "perceiver",
    "idefics2",
    "attention-pool",
    "qwen-vl",
    "honeybee-resampler",
    "instruct-q-former",
    "video-q-former",
    "audio-q-former",
    "gated-cross-attention",
)
"""Connectors whose tokens look at the patches, so that padded patches can be left out."""
READ_PREFIX = ("q-former", "qllama", "instruct-q-former", "video-q-former")
"""Connectors that look at class and register tokens too."""
READ_LEVELS = ("token-packer", "channel-concat", "qwen3-vl")
"""Connectors that read every layer the encoder gives."""


def make(name: str) -> tuple[ConnectorConfig, Connector]:
    config = dataclasses.replace(CONNECTORS[name](), **SMALL.get(name, {}))
    torch.manual_seed(7)
    return config, built(config)


def target_of(config: ConnectorConfig) -> LLMShape:
    """The language model of the tests; one as narrow as the features for the connector that changes nothing."""
    return dataclasses.replace(TARGET, embedding_width=20) if isinstance(config, IdentityConfig) else TARGET


def shown(given: VisualTokens) -> Tensor:
    """What the language model sees of the image: the tokens, or the memory that its layers look at."""
    return given.tokens if given.memory is None else given.memory


def built(config: ConnectorConfig, source: FeatureShape = SOURCE) -> Connector:
    """The connector; one that reads text is given the longest it reads, the same for every view."""
    connector = config.build(source, target_of(config)).eval()
    reads = config.instruction
    if reads is not None:

        def ask(module: Connector, args: tuple[Features]) -> tuple[Features, Text]:
            tokens = args[0].tokens
            ids = (7 + torch.arange(reads.max_tokens, device=tokens.device)).expand(len(tokens), -1)
            return args[0], Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))

        connector.register_forward_pre_hook(ask)
    return connector


def views(count: int, grid: Grid = SOURCE.grid, width: int = SOURCE.width) -> Features:
    generator = torch.Generator().manual_seed(3)
    return Features(tokens=torch.randn(count, grid.size, width, generator=generator), grid=grid)


@pytest.mark.parametrize("name", NAMES)
def test_gives_the_promised_tokens_of_the_embedding_width(name: str) -> None:
    config, connector = make(name)
    given = connector(views(3))
    assert isinstance(given, VisualTokens)
    assert given.tokens.shape == (3, config.num_tokens(SOURCE.grid), target_of(config).embedding_width)


@pytest.mark.parametrize("name", NAMES)
def test_views_of_a_batch_do_not_touch(name: str) -> None:
    _, connector = make(name)
    batch = views(3)
    together = shown(connector(batch))
    for row in range(3):
        alone = shown(connector(Features(tokens=batch.tokens[row : row + 1], grid=batch.grid)))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)
    changed = batch.tokens.clone()
    changed[1] = changed[1].flip(-1)
    again = shown(connector(Features(tokens=changed, grid=batch.grid)))
    assert torch.equal(again[0], together[0])
    assert not torch.allclose(again[1], together[1])


@pytest.mark.parametrize("name", NAMES)
def test_every_patch_can_be_seen(name: str) -> None:
    _, connector = make(name)
    tokens = views(1).tokens.requires_grad_()
    shown(connector(Features(tokens=tokens, grid=SOURCE.grid))).square().sum().backward()
    assert tokens.grad is not None
    assert bool((tokens.grad.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    _, connector = make(name)
    generator = torch.Generator().manual_seed(5)
    connector.train()
    given = connector(Features(tokens=views(2).tokens.requires_grad_(), grid=SOURCE.grid))
    for answer in (given.tokens, *given.levels, *(() if given.memory is None else (given.memory,))):
        (answer * torch.randn(answer.shape, generator=generator)).sum().backward()
    still = [
        key for key, weight in connector.named_parameters() if weight.grad is None or not bool((weight.grad != 0).any())
    ]
    # Softmax does not feel the bias of keys, and nothing reads the last state of a text.
    unread = f"layers.{len(connector.qformer.layers) - 1}.text_ffn." if name == "instruct-q-former" else "no such"
    # What stands inside the language model's layers learns there (test_gated_cross_attention.py).
    still = [key for key in still if not key.endswith("key.bias") and unread not in key]
    assert [key for key in still if not key.startswith("blocks.")] == []


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_is_equal(name: str, tmp_path) -> None:
    config, connector = make(name)
    save_file(connector.state_dict(), tmp_path / "connector.safetensors")
    other = built(config)
    if connector.state_dict():
        assert not torch.equal(shown(other(views(1))), shown(connector(views(1))))
    load_strict(other, load_file(tmp_path / "connector.safetensors"), "the saved connector")
    assert torch.equal(shown(other(views(1))), shown(connector(views(1))))


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_build_equal_weights(name: str) -> None:
    first, second = make(name)[1].state_dict(), make(name)[1].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(name: str, dtype: torch.dtype) -> None:
    _, connector = make(name)
    batch = views(2)
    half = shown(copy.deepcopy(connector).to(dtype)(Features(tokens=batch.tokens.to(dtype), grid=batch.grid)))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), shown(connector(batch)), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("small", [True, False])
def test_parameters_and_flops_are_the_formulas(name: str, small: bool) -> None:
    """On the meta device, so that the defaults count too, whatever their size."""
    config = dataclasses.replace(CONNECTORS[name](), **(SMALL.get(name, {}) if small else {}))
    with torch.device("meta"):
        connector = built(config)
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
    connector = built(config, source)
    assert connector(views(1, clip)).tokens.shape[1] == config.num_tokens(clip)


@pytest.mark.parametrize("name", NAMES)
def test_another_width_is_refused_with_the_way_out(name: str) -> None:
    _, connector = make(name)
    with pytest.raises(ValueError, match=r"width 20, but width 24 came.*encoder\.shape\(\)"):
        connector(views(1, width=24))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_PREFIX])
def test_class_tokens_it_was_not_built_for_are_refused(name: str) -> None:
    _, connector = make(name)
    given = views(2)
    first = torch.zeros(2, 1, SOURCE.width)
    with pytest.raises(ValueError, match=r"1 class or register tokens came.*class_token=False"):
        connector(Features(tokens=torch.cat([first, given.tokens], dim=1), grid=given.grid, prefix=1))


MISFITS = {
    "a map of patches": (lambda t: {"tokens": t[:, None]}, r"\[views, tokens, channels\], but \(2, 1, 144, 20\) came"),
    "one patch": (lambda t: {"tokens": t[0, 0]}, r"\[views, tokens, channels\], but \(20,\) came"),
    "a short mask": (lambda t: {"tokens": t, "valid": t[:, 1:, 0] == 0}, r"shape \(2, 144\), but .* \(2, 143\) came"),
    "a short level": (lambda t: {"tokens": t, "levels": (t[:, 1:],)}, r"levels\[0\] has \(2, 143, 20\)\. Give"),
    "stray levels": (lambda t: {"tokens": t, "levels": (t, t)}, r"levels of widths \(20, 20\) came.*layers=\(-1,\)"),
}
"""Shapes that no connector takes (the first four are refused by `Features` itself), and what is said of them."""


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_are_refused_with_the_way_out(name: str, misfit: str) -> None:
    _, connector = make(name)
    given, said = MISFITS[misfit]
    with pytest.raises(ValueError, match=said):
        connector(Features(**given(views(2).tokens), grid=SOURCE.grid))


@pytest.mark.parametrize("name", READ_LEVELS)
def test_layers_that_do_not_come_are_missed(name: str) -> None:
    config, _ = make(name)
    connector = config.build(dataclasses.replace(SOURCE, level_widths=(20, 24)), TARGET)
    with pytest.raises(ValueError, match=r"further layers of widths \(20, 24\), but \(\) came.*encoder\.shape\(\)"):
        connector(views(1))


ODD = (Grid(1, 1, 1), Grid(1, 5, 7), Grid(1, 12, 11), Grid(3, 4, 4), Grid(1, 30, 30))
WAY_OUT = re.compile(r"\b(Use|use|Change|Build|Set|Raise|Give|Name) ")


def check_misfit(name: str, error: ValueError, grid: Grid) -> None:
    """The message names who refuses, what came, and what to do."""
    said = str(error)
    config, connector = make(name)
    parts = [value for value in vars(config).values() if isinstance(value, ConnectorConfig)]
    assert any(type(one).__name__ in said for one in (connector, config, *parts)), said
    assert f"{grid.rows} x {grid.columns}" in said or f"frame {grid.frames}" in said, said
    assert WAY_OUT.search(said), said


@pytest.mark.parametrize("grid", ODD, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_any_grid_gives_its_tokens_or_the_way_out(name: str, grid: Grid) -> None:
    """Before anything is built, when it is built, and when another grid comes than it was built for."""
    config, connector = make(name)
    source = dataclasses.replace(SOURCE, grid=grid)
    try:
        promised = config.num_tokens(grid)
    except ValueError as error:
        check_misfit(name, error, grid)
        with pytest.raises(ValueError, match=re.escape(str(error))):
            built(config, source)
        promised = -1
    else:
        assert built(config, source)(views(1, grid)).tokens.shape[1] == promised
    try:
        given = connector(views(1, grid))
    except ValueError as error:
        check_misfit(name, error, grid)
    else:
        assert given.tokens.shape[1] == promised


@pytest.mark.parametrize("name", NAMES)
def test_another_checkpoint_is_refused_by_its_keys(name: str) -> None:
    _, connector = make(name)
    state = {key: value.clone() for key, value in connector.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"weights of a file do not fit {type(connector).__name__}.* 1 unknown: other"
    ):
        load_strict(connector, {**state, "other.weight": torch.zeros(1)}, "a file")
    if not state:
        return
    key = next(iter(state))
    with pytest.raises(ValueError, match=rf"1 missing: {re.escape(key)}.*Build it with the config"):
        load_strict(connector, {name: value for name, value in state.items() if name != key}, "a file")
    with pytest.raises(ValueError, match=rf"1 of another shape: {re.escape(key)} is \(9, 9, 9\), wanted"):
        load_strict(connector, {**state, key: torch.zeros(9, 9, 9)}, "a file")
    assert all(torch.equal(value, state[key]) for key, value in connector.state_dict().items())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_LEVELS])
def test_layers_that_would_be_ignored_are_refused(name: str) -> None:
    config, _ = make(name)
    with pytest.raises(ValueError, match=r"gives 3 layers.*reads one.*layers=\(-1,\)"):
        config.build(dataclasses.replace(SOURCE, level_widths=(20, 20)), TARGET)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_PREFIX])
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
    given = shown(connector(dataclasses.replace(batch, valid=valid)))
    again = shown(connector(dataclasses.replace(batch, tokens=tokens, valid=valid)))
    assert torch.equal(given, again)
    whole = shown(connector(batch))
    torch.testing.assert_close(given[0], whole[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given[1], whole[1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SKIP_PADDING])
def test_padding_that_would_become_tokens_is_refused(name: str) -> None:
    _, connector = make(name)
    padded = dataclasses.replace(views(1), valid=torch.ones(1, SOURCE.grid.size, dtype=torch.bool))
    with pytest.raises(ValueError, match="padded features"):
        connector(padded)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_reads_back_from_json(name: str) -> None:
    config, _ = make(name)
    assert from_json(to_json(config), {made.__name__: made for made in CONNECTORS.values()}) == config


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_comes_from(name: str) -> None:
    import sys

    told = sys.modules[CONNECTORS[name].__module__].__doc__
    assert told is not None
    assert "Source:" in told
    assert "arXiv:" in told
    assert "Checked against:" in told
