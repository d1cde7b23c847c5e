"""Fixed 2-D sine-cosine positions for resamplers, and their resizing to another grid."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from isthmus.features import Grid


def sincos_table(side: int, width: int) -> Float[Tensor, "places width"]:
    """A square of positions, row-major. The first half of the channels says the column, the second the row.

    Each half is sines, then cosines, of the index times 10000^-(k / (width / 4)).

    Raises:
        ValueError: the width does not divide by four.
    """
    if width % 4:
        raise ValueError(
            f"2-D sine-cosine positions need a width that divides by 4, but it is {width}: choose an encoder or a "
            f"language model of another width, or AttentionPoolConfig, which has no positions."
        )
    quarter = width // 4
    frequencies = 1.0 / 10_000.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    angles = torch.arange(side, dtype=torch.float32)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = repeat(line, "column half -> (row column) half", row=side)
    rows = repeat(line, "row half -> (row column) half", column=side)
    return torch.cat([columns, rows], dim=1)


def resize_table(table: Float[Tensor, "places width"], side: int, grid: Grid) -> Float[Tensor, "patches width"]:
    """The square table for the patches of a grid, bicubic where the sides differ; every frame gets the same."""
    if (grid.rows, grid.columns) != (side, side):
        # A batch of one whose strides say channels last: torch resizes that in two thirds of the time.
        image = rearrange(table.float()[None], "one (row column) width -> one width row column", row=side)
        image = functional.interpolate(image, (grid.rows, grid.columns), mode="bicubic", align_corners=False)
        table = rearrange(image, "1 width row column -> (row column) width").to(table.dtype)
    return table.repeat(grid.frames, 1) if grid.frames > 1 else table
