"""Anyres and Separated by hand: which token stands where, what is shrunk, and what is refused."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from isthmus.connectors import AveragePoolConfig, ConnectorConfig, LinearConfig, PixelShuffleConfig, QFormerConfig
from isthmus.connectors.arrange import Anyres, Separated
from isthmus.features import FeatureShape, Grid, LLMShape, Plan, VisualTokens

TARGET = LLMShape(embedding_width=1, hidden_width=1, num_layers=2)
END, COMMA = -1.0, -2.0


def visual(views: int, tokens: int) -> VisualTokens:
    """Token t of view v is 10 v + t."""
    numbers = 10.0 * torch.arange(views)[:, None] + torch.arange(tokens)[None]
    return VisualTokens(numbers[..., None])


def plan(
    rows: int, columns: int, whole: Literal["none", "first", "last"] = "first", size: tuple[int, int] = (10, 10)
) -> Plan:
    views = range(rows * columns + (whole != "none"))
    return Plan(size=size, tiles=Grid(1, rows, columns), views=views, whole=whole, tokens=Grid(1, 2, 2))


def anyres(config: Anyres, one: Plan) -> list[float]:
    module = config.build(TARGET)
    if module.newline is not None:
        torch.nn.init.constant_(module.newline, END)
    placed = module(visual(len(one.views), 4), [one])
    assert placed.lengths == (config.num_tokens(one, 4),)
    numbers: list[float] = placed.tokens[:, 0].tolist()
    return numbers


def test_rows_run_through_the_tiles_and_end_in_a_newline() -> None:
    got = anyres(Anyres(unpad=False), plan(1, 2))
    assert got == [0, 1, 2, 3, 10, 11, 20, 21, END, 12, 13, 22, 23, END]


def test_the_whole_may_come_last_or_not_at_all() -> None:
    assert anyres(Anyres(unpad=False), plan(2, 1, "last"))[-4:] == [20, 21, 22, 23]
    assert anyres(Anyres(unpad=False, newline=False), plan(2, 1, "none")) == [0, 1, 2, 3, 10, 11, 12, 13]


def test_padding_is_cut_on_both_sides() -> None:
    """A wide image on a 4 x 4 map covers its two middle rows."""
    got = anyres(Anyres(), plan(2, 2, "none", size=(20, 10)))
    assert got == [2, 3, 12, 13, END, 20, 21, 30, 31, END]


def test_one_view_ends_in_one_newline() -> None:
    assert anyres(Anyres(), plan(1, 1, "none")) == [0, 1, 2, 3, END]
    assert anyres(Anyres(), replace(plan(1, 1), views=range(2))) == [0, 1, 2, 3, 10, 11, END, 12, 13, END]


CLIP = Plan(size=(20, 10), tiles=Grid(2, 1, 1), views=range(2), tokens=Grid(1, 2, 2))


def test_every_frame_of_a_clip_is_an_image_of_one_view() -> None:
    assert anyres(Anyres(), CLIP) == [0, 1, 2, 3, END, 10, 11, 12, 13, END]
    assert anyres(Anyres(newline=False, max_tiles=1), CLIP) == [0, 1, 2, 3, 10, 11, 12, 13]
    module = Separated().build(TARGET)
    torch.nn.init.constant_(module.newline, END)  # type: ignore[arg-type]
    placed = module(visual(2, 4), [CLIP])
    assert placed.lengths == (Separated().num_tokens(CLIP, 4),) == (10,)
    assert placed.tokens[:, 0].tolist() == [0, 1, 2, 3, END, 10, 11, 12, 13, END]


def test_a_map_of_too_many_tiles_is_shrunk() -> None:
    config = Anyres(max_tiles=1, newline=False)
    assert anyres(config, plan(2, 2, "none")) == [1.5, 11.5, 21.5, 31.5]
    assert config.num_tokens(plan(2, 2), 4) == 8
    assert Anyres(max_tiles=4).num_tokens(plan(2, 2), 4) == 4 + 4 * 5


def test_separators_between_and_behind_tiles() -> None:
    config = Separated()
    module = config.build(TARGET)
    torch.nn.init.constant_(module.comma, COMMA)
    torch.nn.init.constant_(module.newline, END)
    wanted = {
        "none": [0, 1, COMMA, 10, 11, END, 20, 21, COMMA, 30, 31, END],
        "last": [0, 1, COMMA, 10, 11, END, 20, 21, COMMA, 30, 31, END, 40, 41, END],
        "first": [0, 1, END, 10, 11, COMMA, 20, 21, END, 30, 31, COMMA, 40, 41, END],
    }
    for whole, tokens in wanted.items():
        one = plan(2, 2, whole)  # type: ignore[arg-type]
        placed = module(visual(len(one.views), 2), [one])
        assert placed.tokens[:, 0].tolist() == tokens
        assert placed.lengths == (config.num_tokens(one, 2),)
    placed = module(visual(1, 2), [plan(1, 1, "none")])
    assert placed.tokens[:, 0].tolist() == [0, 1, END]


@pytest.mark.parametrize("config", [Anyres(), Separated()])
def test_every_weight_learns_also_from_a_single_view(config: Anyres | Separated) -> None:
    module = config.build(TARGET)
    module(visual(1, 4), [plan(1, 1, "none")]).tokens.sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())
    module(visual(3, 4), [plan(1, 2)]).tokens.square().sum().backward()
    assert all(weight.grad is not None and float(weight.grad.abs().sum()) > 0 for weight in module.parameters())


@pytest.mark.parametrize("config", [Anyres(), Anyres(newline=False), Separated()])
def test_no_images_keep_the_gradient_path(config: Anyres | Separated) -> None:
    tokens = visual(2, 4).tokens.requires_grad_()
    config.build(TARGET)(VisualTokens(tokens), ()).tokens.sum().backward()
    assert tokens.grad is not None


def test_connectors_without_a_map_are_refused_before_anything_is_built() -> None:
    source = FeatureShape(width=8, grid=Grid(1, 4, 4))
    maps: list[ConnectorConfig] = [LinearConfig(), AveragePoolConfig(side=2), PixelShuffleConfig()]
    for connector in maps:
        Anyres().check(connector, source, TARGET)
    flat = QFormerConfig(num_queries=4, width=8, layers=1, heads=2, ffn_width=8)
    for connector in (flat, PixelShuffleConfig(order="v1")):
        with pytest.raises(ValueError, match="needs a place in its tile"):
            Anyres().check(connector, source, TARGET)


def test_token_maps_of_connectors() -> None:
    grid = Grid(1, 4, 6)
    assert LinearConfig().token_grid(grid) == grid
    assert AveragePoolConfig(side=(2, 3)).token_grid(grid) == Grid(1, 2, 3)
    assert PixelShuffleConfig().token_grid(grid) == Grid(1, 2, 3)
    assert PixelShuffleConfig(order="v1").token_grid(grid) == Grid(1, 1, 6)


@pytest.mark.parametrize("config", [Anyres(), Separated()])
def test_levels_and_missing_views_are_refused(config: Anyres | Separated) -> None:
    module = config.build(TARGET)
    with pytest.raises(ValueError, match="levels or memory"):
        module(VisualTokens(visual(1, 4).tokens, levels=(visual(1, 4).tokens,)), [plan(1, 1, "none")])
    with pytest.raises(ValueError, match="2 views came"):
        module(visual(2, 4), [plan(1, 2)])
