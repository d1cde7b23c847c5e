"""Separated: tiles one after another, a learned comma between those of a row, a learned newline after each row.

Source: TokenPacker (arXiv:2407.02392), TokenPacker-HD. Checked against: CircleRadon/TokenPacker `llava/model/
llava_arch.py` (oracle `tokenpacker_hd_tiles`: the counts). Differs: there, comma and newline are the language model's
own embeddings of these characters; here they are two learned vectors, so that any language model will do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig, check_coarse, check_views
from isthmus.features import LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Separated(ArrangementConfig):
    """tile , tile newline tile , tile newline whole newline; any connector."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """views * tokens a view + rows * (columns - 1) commas + a newline for each row (or frame) and for the whole.

        Raises:
            ValueError: views that are neither tiles nor the whole.
        """
        if len(plan.views) == 1:
            return per_view + 1
        check_coarse(self, plan)
        rows, columns = plan.tiles.frames * plan.tiles.rows, plan.tiles.columns
        return len(plan.views) * per_view + rows * (columns - 1) + rows + (plan.whole != "none")

    def parameters(self, target: LLMShape) -> int:
        """2 d: comma and newline."""
        return 2 * target.embedding_width

    def build(self, target: LLMShape) -> "SeparatedLayout":
        """The module with fresh separators, drawn from N(0, 1 / d)."""
        return SeparatedLayout(target.embedding_width)


class SeparatedLayout(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.comma = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Each image's tiles with separators. Raises ValueError when views of a plan did not come, or with levels."""
        if visual.levels or visual.memory is not None:
            raise ValueError("Separated places tokens before the first layer alone: levels or memory have no place.")
        check_views(plans, len(visual.tokens))
        parts = [self._image(visual.tokens[plan.views.start : plan.views.stop], plan) for plan in plans]
        tokens = torch.cat(parts) if parts else visual.tokens.flatten(0, 1)[:0]
        # Images of a single tile have no comma, yet every process has to touch every weight.
        return Placed(tokens=tokens + self.comma.to(tokens.dtype) * 0, lengths=tuple(len(part) for part in parts))

    def _image(self, views: Float[Tensor, "views tokens width"], plan: Plan) -> Float[Tensor, "length width"]:
        comma, newline = self.comma.to(views.dtype)[None], self.newline.to(views.dtype)[None]
        if len(views) == 1:
            return torch.cat([views[0], newline])
        tiles = {"none": views, "first": views[1:], "last": views[:-1]}[plan.whole]
        parts: list[Tensor] = []
        for number, tile in enumerate(tiles, 1):
            parts += [tile, newline if number % plan.tiles.columns == 0 else comma]
        whole = {"none": [], "first": [views[0], newline], "last": [views[-1], newline]}[plan.whole]
        return torch.cat([*whole, *parts] if plan.whole == "first" else [*parts, *whole])
