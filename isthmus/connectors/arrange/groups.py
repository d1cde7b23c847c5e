"""Crops of a finer view of an image, sampled to groups of tokens that lie as the tokens of the whole image do.

Source: DeepStack (arXiv:2406.04334), section 3.1 and table 5 (the three ways to sample).
Checked against: MengLcool/DeepStack-VL `process_plain_deepstack` (oracle `deepstack_grouping`).
"""

from dataclasses import replace
from typing import Literal, NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from isthmus.features import Grid, Plan

Sampling = Literal["2d", "grid", "1d", "repeat"]
"""How crops become groups. 2d: every phase of the merged map is a group, so each group spans the image; grid: each crop
is a group; 1d: every k-th token of the flattened map; repeat: no crop, the coarse tokens again (a control)."""


class Split(NamedTuple):
    """The views of one input: those that stay in the sequence, and the crops of each, which lie as `cells`."""

    coarse: tuple[int, ...]
    crops: tuple[tuple[int, ...], ...]
    cells: Grid


def split_whole(plan: Plan, num_groups: int) -> Split:
    """The whole image, refined by its tiles; frames of a clip have none.

    Raises:
        ValueError: no whole image among several views, or more tiles than groups.
    """
    views = tuple(plan.views)
    if len(views) == 1 or plan.tiles.frames > 1:
        return Split(views, ((),) * len(views), Grid(1, 1, 1))
    if plan.whole == "none" or len(views) != 1 + plan.tiles.size:
        raise ValueError(
            f"The tiles refine the whole image, so an image of {plan.tiles.rows} x {plan.tiles.columns} tiles needs "
            f"{1 + plan.tiles.size} views with the whole among them, but {len(views)} came with whole={plan.whole!r}. "
            f"Choose a tiling that keeps the whole image."
        )
    if plan.tiles.size > num_groups:
        raise ValueError(
            f"{plan.tiles.size} tiles make {plan.tiles.size} groups, but groups={num_groups}. Use groups="
            f"{plan.tiles.size}, or fewer tiles."
        )
    first = plan.whole == "first"
    whole, tiles = (views[0], views[1:]) if first else (views[-1], views[:-1])
    return Split((whole,), (tiles,), plan.tiles)


def split_views(plan: Plan, side: int) -> Split:
    """Every view (the whole, then the tiles), each refined by side x side crops of its own; frames of a clip by none.

    The crops come after all views: those of the whole, then those of each tile.

    Raises:
        ValueError: another number of views than that.
    """
    views, cells = tuple(plan.views), side * side
    if plan.tiles.frames > 1:
        return Split(views, ((),) * len(views), Grid(1, 1, 1))
    coarse = 1 if plan.tiles.size == 1 and plan.whole == "none" else 1 + plan.tiles.size
    if len(views) != coarse * (1 + cells) or plan.whole == "last" or (coarse > 1 and plan.whole == "none"):
        raise ValueError(
            f"Every view is refined by {side} x {side} crops, so an image of {plan.tiles.rows} x {plan.tiles.columns} "
            f"tiles after its whole needs {coarse * (1 + cells)} views, but {len(views)} came with "
            f"whole={plan.whole!r}. Use FinerTiles(factor={side}) over tiles that put the whole first."
        )
    finer = views[coarse:]
    crops = tuple(finer[first : first + cells] for first in range(0, len(finer), cells))
    return Split(views[:coarse], crops, Grid(1, side, side))


def coarse_plan(plan: Plan, split: Split, first: int) -> Plan:
    """The plan of the views that stay, numbered from `first`."""
    views = range(first, first + len(split.coarse))
    if plan.tiles.frames > 1:
        return replace(plan, views=views)
    if len(views) == 1:
        return replace(plan, views=views, tiles=Grid(1, 1, 1), whole="none")
    return replace(plan, views=views, whole="first")


def sample(
    crops: Float[Tensor, "cells tokens width"], cells: Grid, tokens: Grid, sampling: Sampling
) -> Float[Tensor, "cells tokens width"]:
    """As many groups as crops; each has a token for every place of `tokens`."""
    if sampling == "grid":
        return crops
    merged = rearrange(
        crops,
        "(rows columns) (h w) width -> (rows h) (columns w) width",
        rows=cells.rows,
        columns=cells.columns,
        h=tokens.rows,
        w=tokens.columns,
    )
    if sampling == "1d":
        strided: Tensor = rearrange(merged.flatten(0, 1), "(place group) width -> group place width", group=cells.size)
        return strided
    phases: Tensor = rearrange(
        merged,
        "(h rows) (w columns) width -> (rows columns) (h w) width",
        rows=cells.rows,
        columns=cells.columns,
    )
    return phases


def check_map(name: str, tokens: Grid | None, *, piece: str = "crop", instead: str = "sampling='grid'") -> Grid:
    """How the tokens of a view (a `piece` of an image) lie. Raises ValueError when they form no map."""
    if tokens is None or (tokens.rows == 1 and tokens.columns > 1) or tokens.frames != 1:
        raise ValueError(
            f"{name} lays the tokens of {piece}s side by side, so each needs a place in its {piece}, but this "
            f"connector's tokens lie as {None if tokens is None else tuple(tokens)} (frames, rows, columns). Use a "
            f"connector that keeps a map (MlpConfig, AveragePoolConfig, PixelShuffleConfig with order='v2'), or "
            f"{instead}."
        )
    return tokens
