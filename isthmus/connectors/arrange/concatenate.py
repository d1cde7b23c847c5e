"""Concatenate: the tokens of an input's views, one view after another.

Source: LLaVA (arXiv:2304.08485) for one view; InternVL 1.5 (arXiv:2404.16821) for tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig, check_views
from isthmus.features import LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Concatenate(ArrangementConfig):
    """The tokens of an input's views, one view after another: no tokens and no parameters of its own."""

    takes_memory: ClassVar[bool] = True

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
        """The views of each plan, in order; memory goes along, each row owned by its input.

        Raises:
            ValueError: a plan names views that did not come, or the connector gives levels.
        """
        if visual.levels:
            raise ValueError(
                f"Concatenate places tokens before the first layer alone, but this connector also gives "
                f"{len(visual.levels)} levels for later layers. Use Levels(layers=...)."
            )
        views, per_view, _ = visual.tokens.shape
        check_views(plans, views)
        order = [view for plan in plans for view in plan.views]
        every = order == list(range(views))
        tokens = visual.tokens if every else visual.tokens[order]
        memory = visual.memory if every or visual.memory is None else visual.memory[order]
        return Placed(
            tokens=tokens.flatten(0, 1),
            lengths=tuple(len(plan.views) * per_view for plan in plans),
            memory=memory,
            owner=() if memory is None else tuple(number for number, plan in enumerate(plans) for _ in plan.views),
        )
