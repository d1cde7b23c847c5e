"""Features with steps in time, frames of a clip or windows of a sound: cut to their real steps, and padded together."""

from collections.abc import Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor

from isthmus.features import Features, Grid


def cut_steps(features: Features, rows: slice) -> Features:
    """Some rows without the steps that are padding in them (which are the last ones, the same in all these rows).

    Raises:
        ValueError: the rows have different numbers of real steps.
    """
    grid, tokens = features.grid, features.tokens[rows]
    levels = tuple(level[rows] for level in features.levels)
    if features.valid is None or bool(features.valid[rows].all()):
        return Features(tokens=tokens, grid=grid, prefix=features.prefix, levels=levels)
    real = reduce(features.valid[rows], "views (steps patches) -> views steps", "any", steps=grid.frames)
    if bool((real != real[:1]).any()):
        raise ValueError("Rows of one input with different numbers of real steps cannot be kept together.")
    steps = int(real[0].sum())
    own, per_step = features.prefix // grid.frames, grid.size // grid.frames
    patches = tokens[:, features.prefix :][:, : steps * per_step]
    return Features(
        tokens=torch.cat([tokens[:, : steps * own], patches], dim=1),
        grid=grid._replace(frames=steps),
        prefix=steps * own,
        levels=tuple(level[:, : steps * per_step] for level in levels),
    )


def join_features(parts: Sequence[Features], frames: int) -> Features:
    """The rows of one after those of another, each padded to `frames` steps; `valid` says which steps are real."""
    padded = [_padded(part, frames) for part in parts]
    levels = zip(*(part.levels for part in padded), strict=True)
    masks = [_real(part, real) for part, real in zip(padded, parts, strict=True)]
    valid = torch.cat(masks)
    return Features(
        tokens=torch.cat([part.tokens for part in padded]),
        grid=padded[0].grid,
        prefix=padded[0].prefix,
        levels=tuple(torch.cat(level) for level in levels),
        valid=None if bool(valid.all()) else valid,
    )


def with_steps(tokens: Tensor, steps: int, own: int) -> Tensor:
    """[views * steps, own prefix + patches, width] -> [views, all prefixes then all patches, width]."""
    split = rearrange(tokens, "(views steps) tokens c -> views steps tokens c", steps=steps)
    prefix = rearrange(split[:, :, :own], "views steps own c -> views (steps own) c")
    patches = rearrange(split[:, :, own:], "views steps patches c -> views (steps patches) c")
    return torch.cat([prefix, patches], dim=1)


def _padded(part: Features, frames: int) -> Features:
    grid = part.grid
    if grid.frames == frames:
        return part
    lacking = frames - grid.frames
    if lacking < 0:
        raise ValueError(f"Features of {grid.frames} steps came from an encoder that gives {frames} at most.")
    own, per_step = part.prefix // grid.frames, grid.size // grid.frames

    def filled(tokens: Tensor, per: int) -> Tensor:
        return torch.cat([tokens, tokens.new_zeros(len(tokens), lacking * per, tokens.shape[2])], dim=1)

    return Features(
        tokens=torch.cat([filled(part.tokens[:, : part.prefix], own), filled(part.patches, per_step)], dim=1),
        grid=Grid(frames, grid.rows, grid.columns),
        prefix=frames * own,
        levels=tuple(filled(level, per_step) for level in part.levels),
    )


def _real(padded: Features, part: Features) -> Tensor:
    mask = torch.zeros(len(part.tokens), padded.grid.size, dtype=torch.bool)
    mask[:, : part.grid.size] = True
    return mask
