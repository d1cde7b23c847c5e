"""Channel stack: the groups of finer crops stand beside the whole image's tokens on channels, then an MLP.

Source: DeepStack (arXiv:2406.04334), table 5, where joining on channels is what stacking in layers is compared with.
By the paper: its code has no such module. Checked against: an MLP on channels joined by hand (tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.connectors.arrange.deepstack import DeepStack, group_views
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class ChannelStack(ArrangementConfig):
    """Over any connector: as many tokens as without the crops, all before the first layer."""

    stack: DeepStack = field(default_factory=lambda: DeepStack(start_layer=0))
    """Which groups there are and how they are sampled; its layers are not used."""
    depth: int = 2
    """Linear layers after joining."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"ChannelStack(depth={self.depth}) has no layer: depth must be 1 or more.")

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """Those of the coarse views alone."""
        return self.stack.num_tokens(plan, per_view)

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError as `DeepStack` does, whatever the number of layers."""
        self.stack.check(connector, source, _deep(target, self.stack))

    def parameters(self, target: LLMShape) -> int:
        """(1 + groups) d d + d, then depth - 1 times d d + d; and those of the layout."""
        d = target.embedding_width
        first = (1 + self.stack.groups) * d * d + d
        return first + (self.depth - 1) * (d * d + d) + self.stack.parameters(target)

    def flops(self, plan: Plan, per_view: int, target: LLMShape) -> int:
        """2 M ((1 + groups) d d + (depth - 1) d d) over the M tokens of the coarse views."""
        tokens = len(self.stack.split(plan).coarse) * per_view
        return 2 * tokens * (self.stack.groups + self.depth) * target.embedding_width**2

    def build(self, target: LLMShape) -> "StackedChannels":
        """The module, with torch's own initial weights."""
        return StackedChannels(self, target, self.stack.arrange.build(target))


class StackedChannels(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def __init__(self, config: ChannelStack, target: LLMShape, arrange: Arrangement) -> None:
        super().__init__()
        self.config = config
        self.arrange = arrange
        width = target.embedding_width
        layers: list[nn.Module] = [nn.Linear((1 + config.stack.groups) * width, width)]
        for _ in range(config.depth - 1):
            layers += [nn.GELU(), nn.Linear(width, width)]
        self.project = nn.Sequential(*layers)

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Joins each coarse token with its groups', projects, and lays out."""
        coarse, groups, laid = group_views(visual.tokens, plans, self.config.stack)
        placed: Placed = self.arrange(VisualTokens(self.project(torch.cat([coarse, *groups], dim=-1))), laid)
        return placed


def _deep(target: LLMShape, stack: DeepStack) -> LLMShape:
    """A language model with enough layers, as none is used."""
    return LLMShape(
        embedding_width=target.embedding_width,
        hidden_width=target.hidden_width,
        num_layers=max(target.num_layers, 1 + max(stack.added_before())),
    )
