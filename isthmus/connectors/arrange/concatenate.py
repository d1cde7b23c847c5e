"""Concatenate: the tokens of an input's views, one view after another.

Source: LLaVA (arXiv:2304.08485) for one view; InternVL 1.5 (arXiv:2404.16821) for tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.features import LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Concatenate(ArrangementConfig):
    """No tokens of its own, no parameters."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """views * tokens a view."""
        return len(plan.views) * per_view

    def parameters(self, target: LLMShape) -> int:
        """None."""
        return 0

    def build(self, target: LLMShape) -> "Concatenation":
        """The module; nothing in it learns."""
        return Concatenation()


class Concatenation(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """The views of each plan, in order.

        Raises:
            ValueError: a plan names views that did not come, or the connector gives levels or memory.
        """
        if visual.levels or visual.memory is not None:
            raise ValueError(
                "Concatenate places tokens before the first layer alone, but this connector also gives "
                f"{'levels for later layers' if visual.levels else 'memory for cross-attention'}. Use an arrangement "
                "that takes them."
            )
        views, per_view, width = visual.tokens.shape
        for plan in plans:
            if plan.views.start < 0 or plan.views.stop > views or plan.views.step != 1:
                raise ValueError(
                    f"A plan names views {plan.views}, but {views} views came. Give the plans of this batch."
                )
        lengths = tuple(len(plan.views) * per_view for plan in plans)
        if not plans:
            return Placed(tokens=visual.tokens.reshape(-1, width)[:0], lengths=())
        chosen = [visual.tokens[plan.views.start : plan.views.stop].reshape(-1, width) for plan in plans]
        return Placed(tokens=torch.cat(chosen), lengths=lengths)
