"""What every arrangement is: from the visual tokens of an input's views to the one sequence the LLM gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, LLMShape, Placed, Plan, VisualTokens


class Arrangement(nn.Module):
    """A module from `VisualTokens` and the plans of the inputs to `Placed`."""

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """One sequence of tokens an input, packed one after another in the order of the plans."""
        raise AssertionError(f"{type(self).__name__} does not define forward")


@dataclass(frozen=True, kw_only=True)
class ArrangementConfig:
    """Choices only. The token count is a closed form of the plan, so prompts are laid out without any weights."""

    def continues(self, earlier: "ArrangementConfig") -> bool:
        """Whether it can go on with the weights of an earlier stage's arrangement."""
        return self == earlier

    def place_of(self, name: str, earlier: "ArrangementConfig") -> str:
        """The name that a weight of an arrangement that it continues has in it."""
        return name

    takes_memory: ClassVar[bool] = False
    """Whether it hands on a connector's memory for gated cross-attention."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """Tokens that an input with this plan takes, when the connector gives `per_view` tokens a view."""
        raise AssertionError(f"{type(self).__name__} does not define num_tokens")

    def added_before(self) -> tuple[int, ...]:
        """The decoder layers before which it adds tokens at the visual positions; most arrangements name none."""
        return ()

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError when it cannot place what this connector gives, before anything is built."""
        check_levels(self, connector.num_levels(source))
        check_memory(self, connector)

    def parameters(self, target: LLMShape) -> int:
        """Number of parameters of its own."""
        raise AssertionError(f"{type(self).__name__} does not define parameters")

    def flops(self, plan: Plan, per_view: int, target: LLMShape) -> int:
        """FLOPs of its own products for an input with this plan; most arrangements only move tokens."""
        return 0

    def build(self, target: LLMShape) -> Arrangement:
        """The module. Raises ValueError on a misfit."""
        raise AssertionError(f"{type(self).__name__} does not define build")


def check_levels(config: ArrangementConfig, count: int) -> None:
    """Raises ValueError when a connector gives levels, which this arrangement would ignore."""
    if count:
        raise ValueError(
            f"{type(config).__name__} places tokens before the first layer alone, but this connector also gives "
            f"{count} levels for later layers. Use Levels(layers={tuple(range(1, count + 1))})."
        )


def check_memory(config: ArrangementConfig, connector: ConnectorConfig) -> None:
    """Raises ValueError when a connector gives memory for cross-attention, which this arrangement would ignore."""
    if connector.enters_layers and not config.takes_memory:
        raise ValueError(
            f"{type(config).__name__} hands no memory on, but {type(connector).__name__} gives memory for "
            f"cross-attention. Use Concatenate()."
        )


def check_layers(config: ArrangementConfig, target: LLMShape) -> None:
    """Raises ValueError unless the language model has every layer that tokens are added before."""
    beyond = [layer for layer in config.added_before() if not 0 <= layer < target.num_layers]
    if beyond:
        raise ValueError(
            f"{type(config).__name__} adds tokens before layers {config.added_before()}, but the language model has "
            f"{target.num_layers} layers (0 to {target.num_layers - 1}). Choose other layers, or fewer of them."
        )


def check_views(plans: Sequence[Plan], views: int) -> None:
    """Raises ValueError when a plan names views that did not come."""
    for plan in plans:
        if plan.views.start < 0 or plan.views.stop > views or plan.views.step != 1:
            raise ValueError(f"A plan names views {plan.views}, but {views} views came. Give the plans of this batch.")


def check_coarse(config: ArrangementConfig, plan: Plan) -> None:
    """Raises ValueError when an image has views besides its tiles and its whole."""
    expected = plan.tiles.size + (plan.whole != "none")
    if len(plan.views) != expected:
        raise ValueError(
            f"{type(config).__name__} places tiles and the whole image, so an image of {plan.tiles.rows} x "
            f"{plan.tiles.columns} tiles with whole={plan.whole!r} has {expected} views, but {len(plan.views)} came. "
            f"Finer crops (FinerTiles) are for DeepStack(every_view=True)."
        )
