"""Qwen3-VL's mergers: squares of patches become one token, and every further encoder layer has a merger of its own.

Source: Qwen3-VL (arXiv:2511.21631), section 2; Qwen2-VL (arXiv:2409.12191) for the merger.
Checked against: `transformers` Qwen3VLVisionPatchMerger (oracles `qwen3vl_merger_main`, `qwen3vl_merger_deepstack`).
Differs: patches come row by row, not block by block; sides and layers are free.
"""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_features
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Qwen3VlConfig(ConnectorConfig):
    """factor ** 2 times fewer tokens. Further encoder layers become levels: lay them out with `Levels(layers=...)`."""

    factor: int = 2
    """Side of the square that becomes one token, in patches."""

    def __post_init__(self) -> None:
        check_counts(self, ("factor",))

    def num_tokens(self, grid: Grid) -> int:
        """Patches / factor ** 2. Raises ValueError when a side of the grid does not divide."""
        if grid.rows % self.factor or grid.columns % self.factor:
            raise ValueError(
                f"Qwen3VlConfig(factor={self.factor}) cannot merge a {grid.rows} x {grid.columns} patch grid: both "
                f"sides must be multiples of {self.factor}. Change the image size, or use AveragePoolConfig, which "
                f"pools any grid."
            )
        return grid.size // self.factor**2

    def token_grid(self, grid: Grid) -> Grid:
        """The merged rows and columns of every frame."""
        self.num_tokens(grid)
        return Grid(grid.frames, grid.rows // self.factor, grid.columns // self.factor)

    def num_levels(self, source: FeatureShape) -> int:
        """One for every encoder layer after the first."""
        return len(source.level_widths)

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Each merger, s = factor ** 2: s s d_v d_v + s d_v + s d_v d + d; norms 2 d_v (main) and 2 s d_v (levels)."""
        cells, out = self.factor**2, target.embedding_width
        total = 2 * source.width + sum(2 * cells * width for width in source.level_widths)
        for width in (source.width, *source.level_widths):
            total += (cells * width) ** 2 + cells * width + cells * width * out + out
        return total

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 M (s s d_v d_v + s d_v d) for every merger."""
        cells, out = self.factor**2, target.embedding_width
        products = sum((cells * width) ** 2 + cells * width * out for width in (source.width, *source.level_widths))
        return 2 * self.num_tokens(source.grid) * products

    def build(self, source: FeatureShape, target: LLMShape) -> "Qwen3VlMergers":
        """The module, with torch's own initial weights. Raises ValueError when the grid does not merge."""
        self.num_tokens(source.grid)
        if source.prefix:
            raise ValueError(
                f"The encoder keeps {source.prefix} class or register tokens, but Qwen3VlConfig merges squares of "
                f"patches and would ignore them. Set class_token=False in the encoder, or use QFormerConfig."
            )
        return Qwen3VlMergers(source, target.embedding_width, config=self)


class Qwen3VlMergers(Connector):
    """[views, patches, width] and as many for each level -> [views, patches / factor ** 2, embedding width] each."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: Qwen3VlConfig) -> None:
        super().__init__()
        self.source = source
        self.config = config
        cells = config.factor**2
        self.merger = PatchMerger(source.width, out_dim, cells=cells, norm_first=True)
        self.deeper = nn.ModuleList(
            PatchMerger(width, out_dim, cells=cells, norm_first=False) for width in source.level_widths
        )

    def forward(self, features: Features) -> VisualTokens:
        """Merges every layer. Raises ValueError when grid, levels or widths do not fit."""
        check_features(self, features, self.source.width, self.source.level_widths)
        self.config.num_tokens(features.grid)
        levels = zip(self.deeper, features.levels, strict=True)
        return VisualTokens(
            self.merger(self._blocks(features.patches, features.grid)),
            levels=tuple(merger(self._blocks(level, features.grid)) for merger, level in levels),
        )

    def _blocks(
        self, patches: Float[Tensor, "views patches width"], grid: Grid
    ) -> Float[Tensor, "views tokens cells width"]:
        factor = self.config.factor
        blocks: Tensor = rearrange(
            patches,
            "views (t h i w j) width -> views (t h w) (i j) width",
            t=grid.frames,
            h=grid.rows // factor,
            i=factor,
            w=grid.columns // factor,
            j=factor,
        )
        return blocks


class PatchMerger(nn.Module):
    """Norm (before or after the patches of a block are joined), linear, GELU, linear."""

    def __init__(self, width: int, out_dim: int, *, cells: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm = nn.LayerNorm(width if norm_first else cells * width, eps=NORM_EPS)
        self.linear_1 = nn.Linear(cells * width, cells * width)
        self.linear_2 = nn.Linear(cells * width, out_dim)

    def forward(self, blocks: Float[Tensor, "*rows cells width"]) -> Float[Tensor, "*rows out"]:
        """[..., cells, width] -> [..., out]."""
        joined = self.norm(blocks).flatten(-2) if self.norm_first else self.norm(blocks.flatten(-2))
        merged: Tensor = self.linear_2(nn.functional.gelu(self.linear_1(joined)))
        return merged


def _merger(official: str, ours: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{official}.norm", (f"{ours}.norm",)),
        Entry(f"{official}.linear_fc1", (f"{ours}.linear_1",)),
        Entry(f"{official}.linear_fc2", (f"{ours}.linear_2",)),
    )


QWEN3VL_KEYS = KeyMap(
    prefix="model.visual.",
    entries=(*_merger("merger", "merger"), *_merger("deepstack_merger_list.*", "deeper.*")),
)
"""The names of Qwen3-VL's checkpoints against ours."""
