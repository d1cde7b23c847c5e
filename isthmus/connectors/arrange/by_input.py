"""By input: images are arranged one way and the frames of clips another, behind one connector.

Source: LLaVA-OneVision (arXiv:2408.03326), section 3.2: tiles of an image with newlines, frames of a video pooled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig
from isthmus.connectors.arrange.concatenate import Concatenate
from isthmus.connectors.arrange.frame_pool import FramePool
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class ByInput(ArrangementConfig):
    """`clip` arranges inputs whose views are frames, `image` all others; a clip of one frame is an image."""

    image: ArrangementConfig = field(default_factory=Concatenate)
    clip: ArrangementConfig = field(default_factory=FramePool)

    def of(self, plan: Plan) -> ArrangementConfig:
        """The arrangement of this input."""
        return self.clip if plan.tiles.frames > 1 else self.image

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """As the arrangement of this input says."""
        return self.of(plan).num_tokens(plan, per_view)

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError when one of the two cannot place what the connector gives, or adds to later layers."""
        for part in (self.image, self.clip):
            if part.added_before():
                raise ValueError(
                    f"ByInput joins arrangements that place tokens before the first layer alone, and "
                    f"{type(part).__name__} adds to later ones. Give clips a branch of their own: Model(video=...)."
                )
            part.check(connector, source, target)
        if connector.enters_layers:
            raise ValueError(
                f"ByInput hands no memory on, but {type(connector).__name__} gives memory for cross-attention. Use "
                f"Concatenate()."
            )

    def parameters(self, target: LLMShape) -> int:
        """Those of both."""
        return self.image.parameters(target) + self.clip.parameters(target)

    def build(self, target: LLMShape) -> "InputArrangement":
        """The module."""
        return InputArrangement(self, target)


class InputArrangement(Arrangement):
    """[views, tokens, width] -> [total, width]."""

    def __init__(self, config: ByInput, target: LLMShape) -> None:
        super().__init__()
        self.config = config
        self.image = config.image.build(target)
        self.clip = config.clip.build(target)

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Each input by its own arrangement, in the order of the plans."""
        clips = [plan.tiles.frames > 1 for plan in plans]
        parts = {
            kind: iter(
                self._arranged(visual, [plan for plan, is_clip in zip(plans, clips, strict=True) if is_clip is kind])
            )
            for kind in (False, True)
        }
        chosen = [next(parts[kind]) for kind in clips]
        tokens = torch.cat(chosen) if chosen else visual.tokens.flatten(0, 1)[:0]
        # Batches without clips, or without images, have to touch every weight as well.
        idle = [weight.sum() * 0 for weight in self.parameters()]
        tokens = tokens + torch.stack(idle).sum().to(tokens.dtype) if idle else tokens
        return Placed(tokens=tokens, lengths=tuple(len(one) for one in chosen))

    def _arranged(self, visual: VisualTokens, plans: Sequence[Plan]) -> list[torch.Tensor]:
        if not plans:
            return []
        placed: Placed = (self.clip if plans[0].tiles.frames > 1 else self.image)(visual, plans)
        return list(torch.split(placed.tokens, list(placed.lengths)))
