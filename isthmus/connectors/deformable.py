"""Deformable attention: every query looks at a few points around its reference point, wherever they fall on the map.

Source: Deformable DETR (arXiv:2010.04159), section 4.1; written with torch's `grid_sample` alone.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class DeformableAttention(nn.Module):
    """`points` places a head and level, at learned offsets (in patches) from the reference point, by learned weights.

    What lies outside the map is zero; between patch centres values are interpolated. Places are found in float32.
    """

    def __init__(self, width: int, *, heads: int, points: int, levels: int) -> None:
        super().__init__()
        self.heads, self.points, self.levels = heads, points, levels
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "maps queries width"],
        features: Sequence[Float[Tensor, "maps rows columns width"]],
        references: Float[Tensor, "1 queries 2"],
    ) -> Float[Tensor, "maps queries width"]:
        """What the queries find. `references` are (x, y) as fractions of the map; `features` are its levels."""
        split = "maps queries (heads levels points xy) -> levels maps queries heads points xy"
        sizes = {"heads": self.heads, "levels": self.levels, "points": self.points}
        offsets = rearrange(self.offsets(queries).float(), split, xy=2, **sizes)
        scores = rearrange(
            self.weights(queries), "maps queries (heads all) -> maps queries heads all", heads=self.heads
        )
        weights = rearrange(
            torch.softmax(scores, dim=-1).float(),
            "maps queries heads (levels points) -> levels (maps heads) 1 queries points",
            levels=self.levels,
        )
        seen = torch.zeros((), device=queries.device)
        for level, shift, weight in zip(features, offsets, weights, strict=True):
            size = torch.tensor([level.shape[2], level.shape[1]], dtype=torch.float32, device=queries.device)
            places = references.float()[:, :, None, None, :] + shift / size
            seen = seen + (self._sample(level, places) * weight).sum(dim=-1)
        joined = rearrange(seen, "(maps heads) c queries -> maps queries (heads c)", heads=self.heads)
        found: Tensor = self.out(joined.to(queries.dtype))
        return found

    def _sample(
        self, level: Float[Tensor, "maps rows columns width"], places: Float[Tensor, "maps queries heads points 2"]
    ) -> Float[Tensor, "rows_and_heads channels queries points"]:
        """Values at the places, bilinear between patch centres."""
        values = rearrange(self.value(level).float(), "maps h w (heads c) -> (maps heads) c h w", heads=self.heads)
        grid = rearrange(2 * places - 1, "maps queries heads points xy -> (maps heads) queries points xy")
        return functional.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def start_around(attention: DeformableAttention) -> None:
    """Deformable DETR's initial values: a ring of points, one direction a head, all with equal weight."""
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    ring = torch.stack([angles.cos(), angles.sin()], dim=-1)
    ring = ring / ring.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, attention.points + 1)
    ring = ring[:, None, None, :] * steps[:, None]
    with torch.no_grad():
        attention.offsets.bias.copy_(ring.expand(-1, attention.levels, -1, -1).flatten())
    for weight in (attention.offsets.weight, attention.weights.weight, attention.weights.bias):
        nn.init.zeros_(weight)
    for part in (attention.value, attention.out):
        nn.init.xavier_uniform_(part.weight)
        nn.init.zeros_(part.bias)


def reference_points(grid: tuple[int, int], rows: int, columns: int) -> Float[Tensor, "1 queries 2"]:
    """(x, y) of rows x columns points, row-major, from the first patch centre to the last, as fractions of the map."""
    high, wide = grid  # by arange: loading a model with transformers can hide linspace from a device context
    y = (0.5 + torch.arange(rows) * ((high - 1) / max(rows - 1, 1))) / high
    x = (0.5 + torch.arange(columns) * ((wide - 1) / max(columns - 1, 1))) / wide
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)[None]
