"""What every connector is: a config that answers without weights, and a module from `Features` to `VisualTokens`."""

from dataclasses import dataclass

from torch import nn

from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


class Connector(nn.Module):
    """A module from `Features` to `VisualTokens`, one row a view."""

    def forward(self, features: Features) -> VisualTokens:
        """[views, patches, width] -> [views, tokens, embedding width]."""
        raise AssertionError(f"{type(self).__name__} does not define forward")


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """Choices only. Token count, parameters and FLOPs are closed forms, so a cost needs no weights.

    FLOPs: one multiply-add is 2; matrix products, convolutions and attention products only, for one view.
    """

    def num_tokens(self, grid: Grid) -> int:
        """Visual tokens for one view with this patch grid. Raises ValueError when the grid does not fit."""
        raise AssertionError(f"{type(self).__name__} does not define num_tokens")

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Number of parameters, biases and norms included."""
        raise AssertionError(f"{type(self).__name__} does not define parameters")

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """FLOPs of one forward pass over one view."""
        raise AssertionError(f"{type(self).__name__} does not define flops")

    def build(self, source: FeatureShape, target: LLMShape) -> Connector:
        """The module, freshly initialised from torch's current random state. Raises ValueError on a misfit."""
        raise AssertionError(f"{type(self).__name__} does not define build")
