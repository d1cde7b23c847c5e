"""What every arrangement is: from the visual tokens of an input's views to the one sequence the LLM gets."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from isthmus.features import LLMShape, Placed, Plan, VisualTokens


class Arrangement(nn.Module):
    """A module from `VisualTokens` and the plans of the inputs to `Placed`."""

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """One sequence of tokens an input, packed one after another in the order of the plans."""
        raise AssertionError(f"{type(self).__name__} does not define forward")


@dataclass(frozen=True, kw_only=True)
class ArrangementConfig:
    """Choices only. The token count is a closed form of the plan, so prompts are laid out without any weights."""

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """Tokens that an input with this plan takes, when the connector gives `per_view` tokens a view."""
        raise AssertionError(f"{type(self).__name__} does not define num_tokens")

    def parameters(self, target: LLMShape) -> int:
        """Number of parameters of its own."""
        raise AssertionError(f"{type(self).__name__} does not define parameters")

    def build(self, target: LLMShape) -> Arrangement:
        """The module. Raises ValueError on a misfit."""
        raise AssertionError(f"{type(self).__name__} does not define build")
