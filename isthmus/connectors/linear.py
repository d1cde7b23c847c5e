"""Linear: one matrix and bias, on every patch alone.

Source: LLaVA (arXiv:2304.08485), section 4.1.
Checked against: haotian-liu/LLaVA `multimodal_projector/builder.py`, `linear` (oracle `llava_projector_linear`).
"""

from dataclasses import dataclass

from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class LinearConfig(ConnectorConfig):
    """One visual token a patch."""

    def num_tokens(self, grid: Grid) -> int:
        """One token a patch."""
        return grid.size

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + d."""
        return source.width * target.embedding_width + target.embedding_width

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N d_v d."""
        return 2 * source.grid.size * source.width * target.embedding_width

    def build(self, source: FeatureShape, target: LLMShape) -> "Linear":
        """The module, with torch's own initial weights as in LLaVA."""
        check_patches_only(self, source)
        return Linear(source.width, target.embedding_width)


class Linear(Connector):
    """[views, patches, width] -> [views, patches, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.project = nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> VisualTokens:
        """Projects every patch."""
        check_features(self, features, self.in_dim)
        return VisualTokens(self.project(features.patches))
