"""Identity: the features themselves are the visual tokens, for encoders as wide as the language model's embeddings.

Source: LLaVA (arXiv:2304.08485), its released code names it as a baseline.
Checked against: haotian-liu/LLaVA `multimodal_projector/builder.py`, `identity` (oracle `llava_projector_identity`).
Differs: `pad`, so that it can stand before a wider language model.
"""

from dataclasses import dataclass

from torch.nn import functional

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(ConnectorConfig):
    """One visual token a patch; nothing learns."""

    pad: bool = False
    """Before a language model that is wider than the encoder, put zeros in the channels that it has more."""

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
        """The module. Raises ValueError unless encoder and language model have one width, or zeros make it one."""
        check_patches_only(self, source)
        more = target.embedding_width - source.width
        if more < 0 or (more and not self.pad):
            zeros = f", or pad=True, which fills {more} channels with zeros" if more > 0 else ""
            raise ValueError(
                f"IdentityConfig hands features on as they are, but the encoder's are {source.width} wide and the "
                f"language model reads {target.embedding_width}. Use LinearConfig, which maps one to the other{zeros}."
            )
        return Identity(source.width, more)


class Identity(Connector):
    """[views, patches, width] -> the same, or [views, patches, width + zeros]."""

    def __init__(self, width: int, zeros: int = 0) -> None:
        super().__init__()
        self.width, self.zeros = width, zeros

    def forward(self, features: Features) -> VisualTokens:
        """The patches."""
        check_features(self, features, self.width)
        return VisualTokens(functional.pad(features.patches, (0, self.zeros)) if self.zeros else features.patches)
