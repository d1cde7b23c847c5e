"""MLP: linear layers with GELU between them, on every patch alone.

Source: LLaVA-1.5 (arXiv:2310.03744), section 3.3.
Checked against: haotian-liu/LLaVA `multimodal_projector/builder.py`, `mlp2x_gelu` (oracle
`llava_projector_mlp2x_gelu`).
"""

from dataclasses import dataclass

from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_depth, check_features, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class MlpConfig(ConnectorConfig):
    """One visual token a patch."""

    depth: int = 2
    """Number of linear layers; the inner width is the embedding width."""

    def __post_init__(self) -> None:
        check_depth(self, self.depth)

    def num_tokens(self, grid: Grid) -> int:
        """One token a patch."""
        return grid.size

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + d, then depth - 1 times d d + d."""
        return mlp_parameters(source.width, target.embedding_width, self.depth)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N (d_v d + (depth - 1) d d)."""
        return mlp_flops(source.grid.size, source.width, target.embedding_width, self.depth)

    def build(self, source: FeatureShape, target: LLMShape) -> "Mlp":
        """The module, with torch's own initial weights as in LLaVA."""
        check_patches_only(self, source)
        return Mlp(source.width, target.embedding_width, depth=self.depth)


class Mlp(Connector):
    """[views, patches, width] -> [views, patches, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, depth: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.project = make_mlp(in_dim, out_dim, depth)

    def forward(self, features: Features) -> VisualTokens:
        """Projects every patch."""
        check_features(self, features, self.in_dim)
        return VisualTokens(self.project(features.patches))


def make_mlp(in_dim: int, out_dim: int, depth: int) -> nn.Sequential:
    """`depth` linear layers with exact GELU between them."""
    layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*layers)


def mlp_parameters(in_dim: int, out_dim: int, depth: int) -> int:
    """Weights and biases of `make_mlp`."""
    return in_dim * out_dim + out_dim + (depth - 1) * (out_dim**2 + out_dim)


def mlp_flops(num_tokens: int, in_dim: int, out_dim: int, depth: int) -> int:
    """FLOPs of `make_mlp` on `num_tokens` tokens."""
    return 2 * num_tokens * (in_dim * out_dim + (depth - 1) * out_dim**2)
