"""Anyres: the tiles' tokens form one map again, padding is cut away, and a learned token ends every row.

Source: LLaVA-1.5-HD (arXiv:2310.03744), section 3.4: split, encode, merge; LLaVA-NeXT; LLaVA-OneVision
(arXiv:2408.03326), section 3.2, which shrinks a map that is too large. Checked against: haotian-liu/LLaVA and
LLaVA-VL/LLaVA-NeXT `prepare_inputs_labels_for_multimodal` (oracles `llava_next_layout*`, `llava_anyres_tables`,
`llava_onevision*`). Of an image a thousand times longer than wide `unpad` leaves no column, as there: newlines alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.arrange.base import (
    Arrangement,
    ArrangementConfig,
    check_coarse,
    check_layers,
    check_levels,
    check_memory,
    check_views,
)
from isthmus.connectors.arrange.groups import check_map
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, Grid, LLMShape, Placed, Plan, VisualTokens

SHRINK_ABOVE = 1.1
"""A map is shrunk only when its side is so many times too long."""


class Map(NamedTuple):
    """What of the merged map of tokens is kept, and the size that it is then shrunk to."""

    top: int
    left: int
    rows: int
    columns: int
    final_rows: int
    final_columns: int


@dataclass(frozen=True, kw_only=True)
class Anyres(ArrangementConfig):
    """The whole image's tokens where the plan puts it, and the merged map of the tiles, row by row."""

    unpad: bool = True
    """Cut away the rows or columns of the map that show padding alone."""
    newline: bool = True
    """End every row of the map with one learned token; an image of a single view, and each frame of a clip, ends with
    one."""
    max_tiles: int | None = None
    """Shrink the map bilinearly when it holds more tokens than so many tiles (LLaVA-OneVision: 9)."""
    digits: int | None = None
    """Round to so many digits before truncating in `unpad`, as transformers does (7); None truncates at once."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """Whole + rows * (columns + 1) of the map that is left; of a clip, those of so many images of one view.

        Raises:
            ValueError: a view's tokens form no map, or views that are neither tiles nor the whole.
        """
        if len(plan.views) == 1 or plan.tiles.frames > 1:
            return len(plan.views) * (per_view + self.newline)
        check_coarse(self, plan)
        kept = self.map_of(plan)
        return (plan.whole != "none") * per_view + kept.final_rows * (kept.final_columns + self.newline)

    def map_of(self, plan: Plan) -> Map:
        """Which part of the merged map is kept, and what it is shrunk to."""
        tokens = _token_grid(plan.tokens)
        rows, columns = plan.tiles.rows * tokens.rows, plan.tiles.columns * tokens.columns
        top, left = self._padding(plan.size, rows, columns) if self.unpad else (0, 0)
        rows, columns = rows - 2 * top, columns - 2 * left
        final = rows, columns
        if self.max_tiles is not None:
            ratio = math.sqrt(rows * columns / (self.max_tiles * tokens.rows * tokens.columns))
            if ratio > SHRINK_ABOVE:
                final = max(1, int(rows // ratio)), max(1, int(columns // ratio))
        return Map(top, left, rows, columns, *final)

    def parameters(self, target: LLMShape) -> int:
        """d for the newline token."""
        return target.embedding_width if self.newline else 0

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError when the connector's tokens form no map, or it gives levels or memory."""
        check_levels(self, connector.num_levels(source))
        check_memory(self, connector)
        check_layers(self, target)
        _token_grid(connector.token_grid(source.grid))

    def build(self, target: LLMShape) -> "AnyresLayout":
        """The module with a fresh newline token, drawn from N(0, 1 / d) as in LLaVA-NeXT."""
        return AnyresLayout(self, target.embedding_width)

    def _padding(self, size: tuple[int, int], rows: int, columns: int) -> tuple[int, int]:
        """Rows above (and below) and columns left (and right) of the image inside its map."""
        width, height = size
        if width / height > columns / rows:
            return (rows - self._truncated(height * (columns / width))) // 2, 0
        return 0, (columns - self._truncated(width * (rows / height))) // 2

    def _truncated(self, length: float) -> int:
        return int(length if self.digits is None else round(length, self.digits))


class AnyresLayout(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def __init__(self, config: Anyres, width: int) -> None:
        super().__init__()
        self.config = config
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width)) if config.newline else None

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Each image's whole and map.

        Raises:
            ValueError: a plan names views that did not come, a view's tokens form no map, or there are levels.
        """
        if visual.levels or visual.memory is not None:
            raise ValueError("Anyres places tokens before the first layer alone: levels or memory have no place.")
        check_views(plans, len(visual.tokens))
        parts = [self._image(visual.tokens[plan.views.start : plan.views.stop], plan) for plan in plans]
        tokens = torch.cat(parts) if parts else visual.tokens.flatten(0, 1)[:0]
        return Placed(tokens=tokens, lengths=tuple(len(part) for part in parts))

    def _image(self, views: Float[Tensor, "views tokens width"], plan: Plan) -> Float[Tensor, "length width"]:
        if len(views) == 1 or plan.tiles.frames > 1:
            return self._ended(views).flatten(0, 1)
        tiles = {"none": views, "first": views[1:], "last": views[:-1]}[plan.whole]
        rows = self._ended(self._map(tiles, plan)).flatten(0, 1)
        if plan.whole == "none":
            return rows
        return torch.cat([views[0], rows] if plan.whole == "first" else [rows, views[-1]])

    def _map(self, tiles: Float[Tensor, "tiles tokens width"], plan: Plan) -> Float[Tensor, "rows columns width"]:
        kept, tokens = self.config.map_of(plan), _token_grid(plan.tokens)
        whole: Tensor = rearrange(
            tiles,
            "(down across) (rows columns) width -> (down rows) (across columns) width",
            down=plan.tiles.rows,
            rows=tokens.rows,
            columns=tokens.columns,
        )
        whole = whole[kept.top : kept.top + kept.rows, kept.left : kept.left + kept.columns]
        if (kept.final_rows, kept.final_columns) == (kept.rows, kept.columns):
            return whole
        channels = rearrange(whole, "rows columns width -> 1 width rows columns")
        size = (kept.final_rows, kept.final_columns)
        shrunk = functional.interpolate(channels, size=size, mode="bilinear", align_corners=False)
        small: Tensor = rearrange(shrunk, "1 width rows columns -> rows columns width")
        return small

    def _ended(self, rows: Float[Tensor, "rows columns width"]) -> Float[Tensor, "rows longer width"]:
        """The newline token at the end of every row."""
        if self.newline is None:
            return rows
        ends = self.newline.to(rows.dtype).expand(len(rows), 1, -1)
        return torch.cat([rows, ends], dim=1)


def _token_grid(tokens: Grid | None) -> Grid:
    return check_map("Anyres", tokens, piece="tile", instead="Concatenate()")
