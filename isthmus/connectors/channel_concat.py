"""Channel concatenation: what several layers or encoders say of a patch stands side by side, then an MLP.

Source: LLaVA-1.5 (arXiv:2310.03744) for the MLP; DeepStack (arXiv:2406.04334), table 5, and Cambrian-1
(arXiv:2406.16860), section 3.3, for joining on channels.
Checked against: LLaVA's MLP on features that were concatenated by hand (oracle `llava_projector_mlp2x_gelu`).
"""

from dataclasses import dataclass

import torch

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_depth, check_features
from isthmus.connectors.mlp import make_mlp, mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class ChannelConcatConfig(ConnectorConfig):
    """One visual token a patch, made of all `Features.levels`: name several encoder layers, as in layers=(-2, -5)."""

    depth: int = 2
    """Number of linear layers; the inner width is the embedding width."""

    def __post_init__(self) -> None:
        check_depth(self, self.depth)

    def num_tokens(self, grid: Grid) -> int:
        """One token a patch."""
        return grid.size

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """C d + d, then depth - 1 times d d + d; C is the sum of all widths."""
        return mlp_parameters(_width(source), target.embedding_width, self.depth)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N (C d + (depth - 1) d d)."""
        return mlp_flops(source.grid.size, _width(source), target.embedding_width, self.depth)

    def build(self, source: FeatureShape, target: LLMShape) -> "ChannelConcat":
        """The module, with torch's own initial weights as in LLaVA."""
        if source.prefix:
            raise ValueError(
                f"The encoder keeps {source.prefix} class or register tokens, but ChannelConcatConfig joins patches "
                f"and would ignore them. Set class_token=False in the encoder, or use QFormerConfig, which reads them."
            )
        return ChannelConcat(source, target.embedding_width, depth=self.depth)


class ChannelConcat(Connector):
    """[views, patches, width] and as many for each level -> [views, patches, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, depth: int) -> None:
        super().__init__()
        self.source = source
        self.project = make_mlp(_width(source), out_dim, depth)

    def forward(self, features: Features) -> VisualTokens:
        """Joins, then projects. Raises ValueError when levels or widths are others than it was built for."""
        check_features(self, features, self.source.width, self.source.level_widths)
        return VisualTokens(self.project(torch.cat([features.patches, *features.levels], dim=-1)))


def _width(source: FeatureShape) -> int:
    return source.width + sum(source.level_widths)
