"""Frame pool: every view's map of tokens is made smaller before the views follow one another, for frames of a video.

Source: LLaVA-OneVision (arXiv:2408.03326), section 3.2: 27 x 27 tokens a frame become 14 x 14.
Checked against: LLaVA-VL/LLaVA-NeXT `get_2dPool` and `transformers` LlavaOnevision (oracle
`llava_onevision_video_pool`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig, check_levels, check_memory, check_views
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, Grid, LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class FramePool(ArrangementConfig):
    """About stride ** 2 times fewer tokens a view."""

    stride: int = 2
    mode: Literal["bilinear", "average", "max"] = "bilinear"
    """bilinear keeps a token of an odd last row and column (27 -> 14), average and max drop them (27 -> 13)."""
    newline: bool = False
    """End each input with one learned token, as transformers does after a video."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"FramePool(stride={self.stride}) must be 1 or more.")

    def pooled(self, tokens: Grid | None) -> Grid:
        """How the tokens of a view lie after pooling. Raises ValueError when they form no map, or too small a one."""
        if tokens is None or (tokens.rows == 1 and tokens.columns > 1):
            raise ValueError(
                f"FramePool makes maps of tokens smaller, but this connector's tokens lie as "
                f"{None if tokens is None else tuple(tokens)} (frames, rows, columns). Use a connector that keeps a "
                f"map, such as MlpConfig, or Concatenate()."
            )
        if self.mode == "bilinear":
            return Grid(tokens.frames, -(-tokens.rows // self.stride), -(-tokens.columns // self.stride))
        if min(tokens.rows, tokens.columns) < self.stride:
            raise ValueError(f"FramePool(stride={self.stride}, mode={self.mode!r}) leaves nothing of {tuple(tokens)}.")
        return Grid(tokens.frames, tokens.rows // self.stride, tokens.columns // self.stride)

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """views * tokens of a pooled map, and the newline."""
        return len(plan.views) * self.pooled(plan.tokens).size + self.newline

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError when the connector's tokens form no map, or it gives levels or memory."""
        check_levels(self, connector.num_levels(source))
        check_memory(self, connector)
        self.pooled(connector.token_grid(source.grid))

    def parameters(self, target: LLMShape) -> int:
        """d for the newline token."""
        return target.embedding_width if self.newline else 0

    def build(self, target: LLMShape) -> "PooledFrames":
        """The module."""
        return PooledFrames(self, target.embedding_width)


class PooledFrames(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def __init__(self, config: FramePool, width: int) -> None:
        super().__init__()
        self.config = config
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width)) if config.newline else None

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """The pooled views of each plan, in order."""
        check_levels(self.config, len(visual.levels))
        check_views(plans, len(visual.tokens))
        parts = [self._input(visual.tokens[plan.views.start : plan.views.stop], plan.tokens) for plan in plans]
        tokens = torch.cat(parts) if parts else visual.tokens.flatten(0, 1)[:0]
        return Placed(tokens=tokens, lengths=tuple(len(part) for part in parts))

    def _input(self, views: Float[Tensor, "views tokens width"], tokens: Grid | None) -> Float[Tensor, "length width"]:
        small = self.config.pooled(tokens)
        assert tokens is not None
        maps = rearrange(views, "v (t h w) c -> (v t) c h w", t=tokens.frames, h=tokens.rows, w=tokens.columns)
        stride = self.config.stride
        if self.config.mode == "bilinear":
            made = functional.interpolate(maps, size=(small.rows, small.columns), mode="bilinear", align_corners=False)
        elif self.config.mode == "average":
            made = functional.avg_pool2d(maps, stride)
        else:
            made = functional.max_pool2d(maps, stride)
        flat: Tensor = rearrange(made, "vt c h w -> (vt h w) c")
        return flat if self.newline is None else torch.cat([flat, self.newline.to(flat.dtype)[None]])
