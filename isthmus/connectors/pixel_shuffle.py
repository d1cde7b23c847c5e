"""Pixel shuffle: fold every square of neighbouring patches into one wider token, then project.

Source: InternVL 1.5 (arXiv:2404.16821), section 3.1. Neighbouring frames in one token: Qwen2-VL (arXiv:2409.12191),
section 2.1, two frames in its patches.
Checked against: OpenGVLab/InternVL `extract_feature` and `mlp1`, `transformers` InternVL (oracles
`internvl_pixel_shuffle*`).
"""

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features, check_patches_only
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

_PATTERNS = {
    "v1": "views (t dt h dh w dw) c -> views (t w h) (dt dh dw c)",
    "v2": "views (t dt h dh w dw) c -> views (t h w) (dt dh dw c)",
}


@dataclass(frozen=True, kw_only=True)
class PixelShuffleConfig(ConnectorConfig):
    """frames * factor ** 2 times fewer tokens; no patch is averaged away before the projection."""

    factor: int = 2
    """Side of the square that becomes one token, in patches."""
    order: Literal["v1", "v2"] = "v2"
    """Order of the tokens: row by row (v2, InternVL 1.5 and later), or column by column (v1, InternVL 1.2)."""
    frames: int = 1
    """Neighbouring frames of a clip that become one token: what moves through its square is in the token itself."""

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"PixelShuffleConfig(factor={self.factor}) folds nothing: factor must be 1 or more.")
        if self.frames < 1:
            raise ValueError(f"PixelShuffleConfig(frames={self.frames}) folds nothing: frames must be 1 or more.")
        if self.order not in _PATTERNS:
            raise ValueError(f"PixelShuffleConfig(order={self.order!r}) is unknown: use 'v2' (row by row) or 'v1'.")

    def num_tokens(self, grid: Grid) -> int:
        """Patches / (frames * factor ** 2). Raises ValueError when a side of the grid or its frames do not divide."""
        if grid.frames % self.frames:
            raise ValueError(
                f"PixelShuffleConfig(frames={self.frames}) cannot fold {grid.frames} frames: their number must be a "
                f"multiple of it. Give the encoder of clips another max_frames, or use frames=1."
            )
        if grid.rows % self.factor or grid.columns % self.factor:
            raise ValueError(
                f"PixelShuffleConfig(factor={self.factor}) cannot fold a {grid.rows} x {grid.columns} patch grid: both "
                f"sides must be multiples of {self.factor}. Change the image size, or use AveragePoolConfig, which "
                f"pools any grid."
            )
        return grid.size // (self.frames * self.factor**2)

    def token_grid(self, grid: Grid) -> Grid:
        """The folded rows and columns; column by column (v1) the tokens form no map that is read row by row."""
        count = self.num_tokens(grid)
        if self.order == "v1":
            return Grid(1, 1, count)
        return Grid(grid.frames // self.frames, grid.rows // self.factor, grid.columns // self.factor)

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """LayerNorm 2 f s s d_v, then f s s d_v d + d and d d + d, for f frames in a token."""
        folded, out = source.width * self.frames * self.factor**2, target.embedding_width
        return 2 * folded + folded * out + out + out**2 + out

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 M (f s s d_v d + d d)."""
        folded, out = source.width * self.frames * self.factor**2, target.embedding_width
        return 2 * self.num_tokens(source.grid) * (folded * out + out**2)

    def build(self, source: FeatureShape, target: LLMShape) -> "PixelShuffle":
        """The module. Raises ValueError when the grid does not fold."""
        check_patches_only(self, source)
        self.num_tokens(source.grid)
        return PixelShuffle(source.width, target.embedding_width, config=self)


class PixelShuffle(Connector):
    """[views, frames * rows * columns, width] -> [views, that / (factor ** 2 * frames a token), embedding width]."""

    def __init__(self, in_dim: int, out_dim: int, *, config: PixelShuffleConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        folded = in_dim * config.frames * config.factor**2
        self.project = nn.Sequential(
            nn.LayerNorm(folded), nn.Linear(folded, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim)
        )

    def forward(self, features: Features) -> VisualTokens:
        """Folds, then projects. Raises ValueError when the grid does not fold."""
        check_features(self, features, self.in_dim)
        self.config.num_tokens(features.grid)
        factor = self.config.factor
        folded = rearrange(
            features.patches,
            _PATTERNS[self.config.order],
            t=features.grid.frames // self.config.frames,
            dt=self.config.frames,
            h=features.grid.rows // factor,
            dh=factor,
            dw=factor,
        )
        return VisualTokens(self.project(folded))
