"""Identity: the features themselves are the visual tokens, for encoders as wide as the language model's embeddings.

Source: LLaVA (arXiv:2304.08485), its released code names it as a baseline.
Checked against: haotian-liu/LLaVA `multimodal_projector/builder.py`, `identity` (oracle `llava_projector_identity`).
"""

from dataclasses import dataclass

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(ConnectorConfig):
    """One visual token a patch; nothing learns."""

    def num_tokens(self, grid: Grid) -> int:
        """One token a patch."""
        return grid.size

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """None."""
        return 0

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """None."""
        return 0

    def build(self, source: FeatureShape, target: LLMShape) -> "Identity":
        """The module. Raises ValueError unless encoder and language model have one width."""
        check_patches_only(self, source)
        if source.width != target.embedding_width:
            raise ValueError(
                f"IdentityConfig hands features on as they are, but the encoder's are {source.width} wide and the "
                f"language model reads {target.embedding_width}. Use LinearConfig, which maps one to the other."
            )
        return Identity(source.width)


class Identity(Connector):
    """[views, patches, width] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Features) -> VisualTokens:
        """The patches."""
        check_features(self, features, self.width)
        return VisualTokens(features.patches)
