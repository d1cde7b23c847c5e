"""DeepStack: the tokens of finer crops are added to those of the whole image, a group before each of several layers.

Source: DeepStack (arXiv:2406.04334), section 3.1; section 3.3 for every view of a tiled image (DeepStack-L-HD).
Checked against: MengLcool/DeepStack-VL `deepstack_arch.py` and `custom_llama.py` (oracles `deepstack_grouping`,
`deepstack_forward*`). The released code counts layers from 0 and starts before layer 1; equation 5 of the paper reads
as block 1 too, so the layer is a field. Differs: a second image in a prompt is added at its own place.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.connectors.arrange.base import (
    Arrangement,
    ArrangementConfig,
    check_layers,
    check_levels,
    check_memory,
)
from isthmus.connectors.arrange.concatenate import Concatenate
from isthmus.connectors.arrange.groups import (
    Sampling,
    Split,
    check_map,
    coarse_plan,
    sample,
    split_views,
    split_whole,
)
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class DeepStack(ArrangementConfig):
    """Over any connector; no parameters. The sequence is as long as without the crops: only layers' inputs change."""

    groups: int = 4
    """How many groups are added. An image with fewer crops adds zeros for the rest."""
    start_layer: int = 1
    """The decoder layer (from 0) before which the first group is added."""
    interval: int = 1
    """Layers from one group to the next."""
    sampling: Sampling = "2d"
    """2d: dilated, every group spans the image; grid: a crop is a group; 1d: strided over the flattened map; repeat:
    the coarse tokens again in place of crops, which shows what the additions alone do."""
    every_view: bool = False
    """Refine every view of a tiled image by crops of its own (HD; groups is then a square), not the whole by tiles."""
    arrange: ArrangementConfig = field(default_factory=Concatenate)
    """How the tokens that stand in the sequence are laid out; the groups lie alike."""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.interval < 1 or self.start_layer < 0:
            raise ValueError(
                f"DeepStack(groups={self.groups}, interval={self.interval}, start_layer={self.start_layer}): there is "
                f"at least 1 group, an interval of at least 1, and layers count from 0."
            )
        if self.every_view and math.isqrt(self.groups) ** 2 != self.groups:
            raise ValueError(f"DeepStack(every_view=True) cuts squares of crops: groups={self.groups} is no square.")
        if self.arrange.added_before():
            raise ValueError(
                f"DeepStack cannot lay out through {type(self.arrange).__name__}, which adds to layers too."
            )

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """Those of the coarse views alone, as `arrange` counts them."""
        return self.arrange.num_tokens(coarse_plan(plan, self.split(plan), 0), per_view)

    def added_before(self) -> tuple[int, ...]:
        """start_layer, start_layer + interval, ..."""
        return tuple(self.start_layer + number * self.interval for number in range(self.groups))

    def split(self, plan: Plan) -> Split:
        """Which views stay and which are their crops. Raises ValueError when the views do not fit."""
        if self.every_view:
            return split_views(plan, math.isqrt(self.groups))
        return split_whole(plan, self.groups)

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError on missing layers, levels or memory that would be ignored, or tokens that form no map."""
        check_layers(self, target)
        check_levels(self, connector.num_levels(source))
        check_memory(self, connector)
        if self.sampling in ("2d", "1d"):
            check_map("DeepStack", connector.token_grid(source.grid))
        self.arrange.check(connector, source, target)

    def continues(self, earlier: ArrangementConfig) -> bool:
        """The layout without groups may be the earlier stage's (DeepStack-L-HD starts from LLaVA-NeXT)."""
        return earlier in (self, self.arrange)

    def place_of(self, name: str, earlier: ArrangementConfig) -> str:
        """Inside, where the earlier one was the layout without groups."""
        return f"arrange.{name}" if earlier == self.arrange else name

    def parameters(self, target: LLMShape) -> int:
        """Those of `arrange`: the groups add none."""
        return self.arrange.parameters(target)

    def build(self, target: LLMShape) -> "StackedGroups":
        """The module. Raises ValueError when the language model has too few layers."""
        check_layers(self, target)
        return StackedGroups(self, self.arrange.build(target))


class StackedGroups(Arrangement):
    """[views, tokens, width] -> the coarse tokens [total, width], and as many for each group."""

    def __init__(self, config: DeepStack, arrange: Arrangement) -> None:
        super().__init__()
        self.config = config
        self.arrange = arrange

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Coarse tokens and groups, laid out alike. Raises ValueError when views or levels do not fit."""
        check_levels(self.config, len(visual.levels))
        coarse, groups, laid = group_views(visual.tokens, plans, self.config)
        placed: Placed = self.arrange(VisualTokens(coarse), laid)
        deeper = tuple(self.arrange(VisualTokens(group), laid).tokens for group in groups)
        return Placed(tokens=placed.tokens, lengths=placed.lengths, deeper=deeper, layers=self.config.added_before())


def group_views(
    tokens: Float[Tensor, "views tokens width"], plans: Sequence[Plan], config: DeepStack
) -> tuple[Float[Tensor, "coarse tokens width"], tuple[Float[Tensor, "coarse tokens width"], ...], tuple[Plan, ...]]:
    """The tokens of the coarse views, the groups that lie as they do, and the plans of the coarse views alone."""
    kept: list[int] = []
    laid: list[Plan] = []
    stacks: list[Tensor] = []
    for plan in plans:
        split = config.split(plan)
        laid.append(coarse_plan(plan, split, len(kept)))
        kept += split.coarse
        for view, crops in zip(split.coarse, split.crops, strict=True):
            stacks.append(_stack(tokens, view, crops, plan, split, config))
    coarse = tokens[kept]
    if not stacks:
        return coarse, (coarse,) * config.groups, ()
    return coarse, torch.stack(stacks, dim=1).unbind(0), tuple(laid)


def _stack(
    tokens: Tensor, view: int, crops: tuple[int, ...], plan: Plan, split: Split, config: DeepStack
) -> Float[Tensor, "groups tokens width"]:
    """The groups of one coarse view; zeros where there is no crop."""
    if config.sampling == "repeat":
        return tokens[view].expand(config.groups, -1, -1)
    if not crops:
        return tokens.new_zeros(config.groups, *tokens.shape[1:])
    grid = split.cells if config.sampling == "grid" else check_map("DeepStack", plan.tokens)
    groups = sample(tokens[list(crops)], split.cells, grid, config.sampling)
    return torch.cat([groups, tokens.new_zeros(config.groups - len(crops), *tokens.shape[1:])])
