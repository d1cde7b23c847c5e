"""Honeybee's MLP: an optional norm and position table, linear layers with SiLU between them, on every patch alone.

Source: Honeybee (arXiv:2312.06742), table 4 (its MLP baseline).
Checked against: khanrc/honeybee `projectors.py`, `MLPProjector` (oracle `honeybee_mlp`).
Differs: grids need not be square, and each frame of a clip has the same positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_depth, check_features, check_patches_only
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.maps import append, check_same_grid
from isthmus.connectors.mlp import mlp_flops, mlp_parameters
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens

NORM_EPS = 1e-6
HONEYBEE_ENDS = (Entry("pos_emb", ("positions",)), Entry("eos_tokens", ("eos",)), Entry("prenorm", ("prenorm",)))
HONEYBEE_MLP_KEYS = KeyMap("abstractor.", (Entry("net.*", ("project.*",)), *HONEYBEE_ENDS))
"""The names of khanrc/honeybee."""


@dataclass(frozen=True, kw_only=True)
class HoneybeeMlpConfig(ConnectorConfig):
    """One visual token a patch, and `eos_tokens` learned ones after them."""

    depth: int = 2
    """Number of linear layers; the inner width is the embedding width."""
    prenorm: bool = False
    """A LayerNorm on the features."""
    positions: bool = False
    """A learned vector added to every patch by its place; ties the weights to the patch grid."""
    eos_tokens: int = 0
    """Learned tokens after those of every view."""

    def __post_init__(self) -> None:
        check_depth(self, self.depth)
        check_eos(self, self.eos_tokens)

    def num_tokens(self, grid: Grid) -> int:
        """One token a patch, and the learned ones."""
        return grid.size + self.eos_tokens

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """d_v d + d, then depth - 1 times d d + d; 2 d_v (norm), N d_v (positions), eos d."""
        table = source.grid.rows * source.grid.columns * source.width if self.positions else 0
        ends = 2 * source.width * self.prenorm + table + self.eos_tokens * target.embedding_width
        return mlp_parameters(source.width, target.embedding_width, self.depth) + ends

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """2 N (d_v d + (depth - 1) d d)."""
        return mlp_flops(source.grid.size, source.width, target.embedding_width, self.depth)

    def build(self, source: FeatureShape, target: LLMShape) -> "HoneybeeMlp":
        """The module, with Honeybee's initial weights."""
        check_patches_only(self, source)
        return HoneybeeMlp(source, target.embedding_width, config=self)


class HoneybeeMlp(Connector):
    """[views, patches, width] -> [views, patches + eos, embedding width]."""

    def __init__(self, source: FeatureShape, out_dim: int, *, config: HoneybeeMlpConfig) -> None:
        super().__init__()
        self.in_dim, self.grid = source.width, source.grid
        self.prenorm = nn.LayerNorm(source.width, eps=NORM_EPS) if config.prenorm else None
        self.positions = make_table(source.grid.rows * source.grid.columns if config.positions else 0, source.width)
        self.project = make_readout(source.width, out_dim, config.depth)
        self.eos = make_table(config.eos_tokens, out_dim)
        self.apply(initialise)

    def forward(self, features: Features) -> VisualTokens:
        """Projects every patch. Raises ValueError on another grid, when positions are learned."""
        check_features(self, features, self.in_dim)
        hidden = features.patches if self.prenorm is None else self.prenorm(features.patches)
        if self.positions is not None:
            check_same_grid(self, features.grid, self.grid)
            hidden = hidden + self.positions.repeat(1, features.grid.frames, 1)
        return VisualTokens(append(self.project(hidden), self.eos))


def without_class_position(state: Mapping[str, Tensor], patches: int) -> dict[str, Tensor]:
    """`state` under official names without the position of the class token that older checkpoints keep first."""
    kept = dict(state)
    for name in ("pos_emb", "v_pos_emb"):
        if name in kept and kept[name].dim() == 3 and kept[name].shape[1] == patches + 1:
            kept[name] = kept[name][:, 1:]
    return kept


def make_readout(in_dim: int, out_dim: int, depth: int) -> nn.Sequential:
    """`depth` linear layers with SiLU between them."""
    layers: list[nn.Module] = [nn.Linear(in_dim, out_dim)]
    for _ in range(depth - 1):
        layers += [nn.SiLU(), nn.Linear(out_dim, out_dim)]
    return nn.Sequential(*layers)


def make_table(rows: int, width: int) -> nn.Parameter | None:
    """[1, rows, width] learned vectors that start at a truncated N(0, 0.02); none for no rows."""
    if rows == 0:
        return None
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, width), std=0.02))


def initialise(module: nn.Module) -> None:
    """Honeybee's initial values: N(0, 0.02) for weights, zero for biases."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_eos(config: object, count: int) -> None:
    """Raises ValueError for fewer than no tokens."""
    if count < 0:
        raise ValueError(f"{type(config).__name__}(eos_tokens={count}) must be 0 or more.")
