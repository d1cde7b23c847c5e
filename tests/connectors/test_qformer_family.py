"""What is particular to the connectors built on Q-Former layers: windows, frames, audio windows and instructions."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from isthmus.connectors import (
    AudioQFormerConfig,
    InstructQFormerConfig,
    QFormerConfig,
    VideoQFormerConfig,
    WindowedQFormerConfig,
    WindowedStreamsConfig,
)
from isthmus.connectors.arrange import Levels
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Plan, Text, VisualTokens

TARGET = LLMShape(embedding_width=14, hidden_width=14, num_layers=1)
INNER = QFormerConfig(num_queries=3, width=16, layers=2, heads=2, ffn_width=24)
VIDEO = VideoQFormerConfig(image=INNER, num_queries=4, max_frames=5)
AUDIO = AudioQFormerConfig(num_queries=4, width=16, heads=2, ffn_width=24, max_windows=6)
INSTRUCT = InstructQFormerConfig(
    qformer=dataclasses.replace(INNER, text=True, vocabulary=40, positions=12), max_text_tokens=12
)


def made(config: Any, grid: Grid, prefix: int = 0) -> Any:
    """The connector with weights large enough that what it sees matters."""
    torch.manual_seed(0)
    module = config.build(FeatureShape(width=8, grid=grid, prefix=prefix), TARGET).eval()
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return module


def features(grid: Grid, prefix: int = 0, rows: int = 1) -> Features:
    tokens = torch.randn(rows, prefix + grid.size, 8, generator=torch.Generator().manual_seed(1))
    return Features(tokens=tokens, grid=grid, prefix=prefix)


def moved(module: Any, given: Features, place: int) -> Tensor:
    """Which output tokens change with one input token."""
    tokens = given.tokens.clone()
    tokens[0, place] = tokens[0, place].flip(-1)
    change = module(dataclasses.replace(given, tokens=tokens)).tokens - module(given).tokens
    return change.abs().sum(-1)[0] > 1e-6


@pytest.mark.parametrize("shrink", ["area", "top-left", "top-right", "bottom-left", "bottom-right"])
def test_windows_lie_where_they_were_cut(shrink: Any) -> None:
    grid = Grid(1, 4, 6)
    module = made(WindowedQFormerConfig(query_side=1, window_side=2, head_width=4, ffn_width=8, shrink=shrink), grid)
    for place, window in ((0, 0), (3, 1), (6 + 1, 0), (2 * 6, 3), (3 * 6 + 5, 5)):
        assert moved(module, features(grid), place).nonzero().flatten().tolist() == [window]


def test_a_corner_becomes_the_query() -> None:
    config = WindowedQFormerConfig(query_side=1, window_side=2, head_width=4, ffn_width=8)
    maps = torch.arange(16.0).reshape(1, 1, 4, 4, 1)
    taken = {
        shrink: made(dataclasses.replace(config, shrink=shrink), Grid(1, 4, 4)).shrink(maps).flatten().tolist()
        for shrink in ("area", "top-left", "top-right", "bottom-left", "bottom-right")
    }
    assert taken == {
        "area": [2.5, 4.5, 10.5, 12.5],
        "top-left": [0.0, 2.0, 8.0, 10.0],
        "top-right": [1.0, 3.0, 9.0, 11.0],
        "bottom-left": [4.0, 6.0, 12.0, 14.0],
        "bottom-right": [5.0, 7.0, 13.0, 15.0],
    }


def test_tokens_of_windows_keep_the_raster() -> None:
    config = WindowedQFormerConfig(query_side=2, window_side=4)
    assert config.token_grid(Grid(2, 8, 12)) == Grid(2, 4, 6)
    assert config.num_tokens(Grid(2, 8, 12)) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shrink": "top-left", "window_side": 6}, r"twice query_side, but they are 6 and 2"),
        ({"query_side": 0}, "query_side=0"),
    ],
)
def test_impossible_windows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowedQFormerConfig(**change)


def test_a_grid_that_windows_do_not_fill_and_a_width_without_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot cut a 6 x 8 patch grid: both sides must be multiples of 4"):
        WindowedQFormerConfig(head_width=8).build(FeatureShape(width=8, grid=Grid(1, 6, 8)), TARGET)
    with pytest.raises(ValueError, match=r"width 10 do not divide into heads of head_width=3"):
        WindowedQFormerConfig(head_width=3).build(FeatureShape(width=10, grid=Grid(1, 4, 4)), TARGET)


SMALL_WINDOWS = WindowedQFormerConfig(query_side=1, window_side=2, head_width=4, ffn_width=8)


def test_streams_are_projectors_of_their_layers() -> None:
    config = WindowedStreamsConfig(projector=SMALL_WINDOWS, streams=((1, "area"), (0, "top-left"), (1, "bottom-right")))
    grid = Grid(1, 4, 4)
    source = FeatureShape(width=8, grid=grid, level_widths=(12,))
    torch.manual_seed(0)
    module = config.build(source, TARGET).eval()
    tokens, level = torch.randn(2, 16, 8), torch.randn(2, 16, 12)
    given = module(Features(tokens=tokens, grid=grid, levels=(level,)))
    alone = [
        stream(Features(tokens=one, grid=grid)).tokens
        for stream, one in zip(module.streams, (level, tokens, level), strict=True)
    ]
    assert torch.equal(given.tokens, alone[0])
    assert all(torch.equal(one, other) for one, other in zip(given.levels, alone[1:], strict=True))
    assert config.num_levels(source) == 2
    assert sum(weight.numel() for weight in module.parameters()) == config.parameters(source, TARGET)


def test_streams_without_a_layer_and_layers_without_a_stream_are_refused() -> None:
    shape = FeatureShape(width=8, grid=Grid(1, 4, 4), level_widths=(8,))
    with pytest.raises(ValueError, match=r"streams of layers \[2\], but the encoder gives 2 \(0 to 1\)"):
        WindowedStreamsConfig(projector=SMALL_WINDOWS, streams=((2, "area"),)).build(shape, TARGET)
    with pytest.raises(ValueError, match=r"gives 2 layers, but WindowedStreamsConfig reads one: nothing reads \[1\]"):
        WindowedStreamsConfig(projector=SMALL_WINDOWS).build(shape, TARGET)
    with pytest.raises(ValueError, match="twice query_side"):
        WindowedStreamsConfig(projector=dataclasses.replace(SMALL_WINDOWS, window_side=4))
    with pytest.raises(ValueError, match="needs one or more"):
        WindowedStreamsConfig(projector=SMALL_WINDOWS, streams=())


def test_blank_levels_leave_zeros_in_the_sequence_and_add_the_tokens_first() -> None:
    arrange = Levels(layers=(0, 2), blank=True)
    target = dataclasses.replace(TARGET, num_layers=3)
    streams = WindowedStreamsConfig(streams=((0, "area"), (0, "top-left")))
    arrange.check(streams, FeatureShape(width=8, grid=Grid(1, 4, 4)), target)
    tokens, level = torch.randn(1, 4, 14), torch.randn(1, 4, 14)
    plan = Plan(size=(4, 4), tiles=Grid(1, 1, 1), views=range(1))
    placed = arrange.build(target)(VisualTokens(tokens, levels=(level,)), (plan,))
    assert not placed.tokens.any()
    assert placed.layers == (0, 2)
    assert torch.equal(placed.deeper[0], tokens[0])
    assert torch.equal(placed.deeper[1], level[0])


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_time_matters_and_the_order_inside_a_frame_does_not(kind: str) -> None:
    grid = Grid(3, 1, 2)
    module = made(VIDEO if kind == "video" else AUDIO, grid)
    given = features(grid)
    before = module(given).tokens

    def after(order: list[int]) -> Tensor:
        tokens: Tensor = module(dataclasses.replace(given, tokens=given.tokens[:, order])).tokens
        return tokens

    torch.testing.assert_close(after([1, 0, 2, 3, 5, 4]), before, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(after([2, 3, 0, 1, 4, 5]), before, atol=1e-4, rtol=0)


def test_frames_share_out_their_class_tokens() -> None:
    grid = Grid(2, 1, 2)
    module = made(VIDEO, grid, prefix=2)
    given = features(grid, prefix=2)
    frames = module.image(given)
    for frame, places in enumerate(([0, 2, 3], [1, 4, 5])):
        alone = Features(tokens=given.tokens[:, places], grid=Grid(1, 1, 2), prefix=1)
        torch.testing.assert_close(module.image(alone)[:, 0], frames[:, frame], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="clip of 2 frames came with 3 class or register tokens"):
        VIDEO.build(FeatureShape(width=8, grid=grid, prefix=3), TARGET)


@pytest.mark.parametrize("config", [VIDEO, AUDIO], ids=["video", "audio"])
def test_a_shorter_clip_in_a_padded_batch_is_the_clip_alone(config: Any) -> None:
    long, short = features(Grid(4, 1, 2)), features(Grid(3, 1, 2))
    tokens = torch.cat([short.tokens, torch.full((1, 2, 8), 9.0)], dim=1)
    valid = torch.tensor([[True] * 8, [True] * 6 + [False] * 2])
    module = made(config, Grid(4, 1, 2))
    together = module(Features(tokens=torch.cat([long.tokens, tokens]), grid=Grid(4, 1, 2), valid=valid)).tokens
    torch.testing.assert_close(together[1], module(short).tokens[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[0], module(long).tokens[0], atol=1e-5, rtol=1e-4)


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_frames=5\) has positions for 5 steps in time, but the encoder gives 6"):
        VIDEO.build(FeatureShape(width=8, grid=Grid(6, 1, 1)), TARGET)
    with pytest.raises(ValueError, match=r"max_windows=6\).*gives 7"):
        made(AUDIO, Grid(2, 1, 1))(features(Grid(7, 1, 1)))
    with pytest.raises(ValueError, match="reads no text"):
        VideoQFormerConfig(image=dataclasses.replace(INNER, text=True))


def test_a_frozen_inner_qformer_learns_nothing_and_the_outer_one_does() -> None:
    module = made(VIDEO, Grid(2, 1, 2)).train()
    module.image.requires_grad_(False)
    module(features(Grid(2, 1, 2))).tokens.square().sum().backward()
    learnt = {name.split(".")[0] for name, weight in module.named_parameters() if weight.grad is not None}
    assert learnt == {"video", "project"}


def words(rows: int, length: int = 5, seed: int = 2) -> Text:
    ids = torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))
    return Text(ids=ids, mask=torch.ones(rows, length, dtype=torch.bool))


def test_tokens_follow_the_question_and_not_its_padding() -> None:
    grid = Grid(1, 2, 2)
    module = made(INSTRUCT, grid)
    given, text = features(grid, rows=2), words(2)
    before = module(given, text).tokens
    assert before.shape == (2, 3, 14)
    other = Text(ids=torch.cat([text.ids[:1], words(1, seed=3).ids]), mask=text.mask)
    after = module(given, other).tokens
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=1e-4)
    pad = torch.nn.functional.pad
    longer = Text(ids=pad(text.ids, (0, 2), value=7), mask=pad(text.mask, (0, 2)))
    torch.testing.assert_close(module(given, longer).tokens, before, atol=1e-5, rtol=1e-4)


def test_training_touches_every_weight_and_changes_no_token() -> None:
    config = dataclasses.replace(INSTRUCT, qformer=dataclasses.replace(INSTRUCT.qformer, dropout=0.0))
    module = made(config, Grid(1, 2, 2))
    given, text = features(Grid(1, 2, 2)), words(1)
    plain = module(given, text).tokens
    taught = module.train()(given, text).tokens
    assert torch.equal(plain, taught)
    taught.sum().backward()
    assert [name for name, weight in module.named_parameters() if weight.grad is None] == []


def test_an_instruction_is_needed_and_has_to_fit() -> None:
    module = made(INSTRUCT, Grid(1, 2, 2))
    with pytest.raises(ValueError, match=r"no text came.*Model\.batch.*QFormerConfig"):
        module(features(Grid(1, 2, 2)))
    with pytest.raises(ValueError, match="2 texts came with 1 feature rows"):
        module(features(Grid(1, 2, 2)), words(2))
    with pytest.raises(ValueError, match=r"QFormerConfig\(text=True\)"):
        InstructQFormerConfig(qformer=INNER)
    with pytest.raises(ValueError, match=r"max_text_tokens=13\) is more than the Q-Former's 12 positions"):
        dataclasses.replace(INSTRUCT, max_text_tokens=13)


def test_text_costs_what_the_counter_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    source = FeatureShape(width=8, grid=Grid(1, 2, 2))
    with torch.device("meta"):
        module = INSTRUCT.build(source, TARGET)
        given = Features(tokens=torch.empty(1, 4, 8), grid=source.grid)
    for length in (1, 7):
        text = words(1, length=length)
        with FlopCounterMode(display=False) as counter:
            module(given, Text(ids=text.ids.to("meta"), mask=text.mask.to("meta")))
        assert counter.get_total_flops() == INSTRUCT.qformer.flops(source, TARGET) + INSTRUCT.text_flops(length)
