"""LDP: an MLP on every patch, then two lightweight convolutional blocks, the second of which halves both sides.

Source: MobileVLM (arXiv:2312.16886).
Checked against: Meituan-AutoML/MobileVLM `vision_projector.py`, `LDPNetProjector`, with torchvision's MobileNetV3
blocks (oracle `mobilevlm_ldp`).
Differs: patch grids need not be square, and each frame of a clip is projected by itself.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import Depthwise, Pointwise, SqueezeExcite, squeeze_parameters, to_maps, to_tokens
from isthmus.connectors.mlp import make_mlp, mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

_BLOCK = {
    "depthwise": "block.0.0",
    "depthwise_norm": "block.0.1",
    "excite.narrow": "block.1.fc1",
    "excite.widen": "block.1.fc2",
    "last": "block.2.0",
    "last_norm": "block.2.1",
}
LDP_KEYS = KeyMap(
    "model.mm_projector.",
    (
        Entry("model.mlp.1", ("project.0",)),
        Entry("model.mlp.3", ("project.2",)),
        *(Entry(f"model.mb_block.1.{theirs}", (f"same.{ours}",)) for ours, theirs in _BLOCK.items()),
        *(Entry(f"model.mb_block.2.{theirs}", (f"halved.{ours}",)) for ours, theirs in _BLOCK.items()),
    ),
)
"""The names of Meituan-AutoML/MobileVLM."""


@dataclass(frozen=True, kw_only=True)
class LdpConfig(ConnectorConfig):
    """A quarter of the patches as tokens; an odd side is rounded up."""

    def num_tokens(self, grid: Grid) -> int:
        """frames * ceil(rows / 2) * ceil(columns / 2)."""
        return grid.frames * -(-grid.rows // 2) * -(-grid.columns // 2)

    def token_grid(self, grid: Grid) -> Grid:
        """Half the rows and columns, rounded up."""
        return Grid(grid.frames, -(-grid.rows // 2), -(-grid.columns // 2))

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + d + d d + d, and twice 9 d + d d + 4 d and the gate 2 d s + s + d."""
        d = target.embedding_width
        block = 9 * d + d * d + 4 * d + squeeze_parameters(d, squeezed(d))
        return mlp_parameters(source.width, d, 2) + 2 * block

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N (d_v d + d d), then N (18 d + 2 d d) and M (18 d + 2 d d), and 4 d s a frame and block."""
        d, n = target.embedding_width, source.grid.size
        blocks = (n + self.num_tokens(source.grid)) * (18 * d + 2 * d * d)
        return mlp_flops(n, source.width, d, 2) + blocks + 2 * source.grid.frames * 4 * d * squeezed(d)

    def build(self, source: FeatureShape, target: LLMShape) -> "Ldp":
        """The module, with torch's own initial weights as in MobileVLM."""
        check_patches_only(self, source)
        return Ldp(source.width, target.embedding_width)


class Ldp(Connector):
    """[views, frames * rows * columns, width] -> [views, about a quarter of that, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.project = make_mlp(in_dim, out_dim, 2)
        self.same = LdpBlock(out_dim, stride=1)
        self.halved = LdpBlock(out_dim, stride=2)

    def forward(self, features: Features) -> VisualTokens:
        """Projects every patch, mixes neighbours, then halves both sides."""
        check_features(self, features, self.in_dim)
        maps = to_maps(self.project(features.patches), features.grid)
        return VisualTokens(to_tokens(self.halved(maps + self.same(maps)), features.grid.frames))


class LdpBlock(nn.Module):
    """Depthwise convolution, norm, Hardswish, squeeze and excite, pointwise convolution, norm."""

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__()
        self.depthwise = Depthwise(width, stride=stride)
        self.depthwise_norm = nn.LayerNorm(width)
        self.excite = SqueezeExcite(width, squeezed(width), activation=functional.relu, gate=functional.hardsigmoid)
        self.last = Pointwise(width, width)
        self.last_norm = nn.LayerNorm(width)

    def forward(self, maps: Float[Tensor, "maps h w width"]) -> Float[Tensor, "maps rows columns width"]:
        """[maps, h, w, width] -> [maps, ceil(h / stride), ceil(w / stride), width]."""
        hidden = functional.hardswish(self.depthwise_norm(self.depthwise(maps)))
        mixed: Tensor = self.last_norm(self.last(self.excite(hidden)))
        return mixed


def squeezed(width: int) -> int:
    """A quarter of the width to the nearest multiple of 8, at least 8 and never 10% less than the quarter."""
    quarter = width // 4
    near = max(8, (quarter + 4) // 8 * 8)
    return near + 8 if near < 0.9 * quarter else near
