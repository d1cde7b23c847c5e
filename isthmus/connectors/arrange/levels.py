"""Levels: what a connector makes of several encoder layers is added before several layers of the language model.

Source: Qwen3-VL (arXiv:2511.21631), section 2, which names DeepStack (arXiv:2406.04334). There level k is added after
decoder layer k (from 0), which is before layer k + 1. The granite vision models add theirs before layers 0, 3, 6, ...
Checked against: `transformers` Qwen3VLTextModel and Granite4Vision's text model (oracles `qwen3vl_deepstack`,
`granite4_vision_deepstack`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from isthmus.connectors.arrange.base import Arrangement, ArrangementConfig, check_layers, check_memory
from isthmus.connectors.arrange.concatenate import Concatenate
from isthmus.connectors.base import ConnectorConfig
from isthmus.features import FeatureShape, LLMShape, Placed, Plan, VisualTokens


@dataclass(frozen=True, kw_only=True)
class Levels(ArrangementConfig):
    """Over any connector that gives levels; no parameters, and no token more in the sequence."""

    layers: tuple[int, ...] = (1, 2, 3)
    """The decoder layer (from 0) before which each level is added."""
    arrange: ArrangementConfig = field(default_factory=Concatenate)
    """How the tokens lie in the sequence; the levels lie alike."""
    blank: bool = False
    """Zeros stand in the sequence; the tokens too are added, before the first of the layers (the granite models)."""

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"Levels(layers={self.layers}) needs one or more layers, counted from 0, each named once.")
        if self.arrange.added_before():
            raise ValueError(f"Levels cannot lay out through {type(self.arrange).__name__}, which adds to layers too.")

    def num_tokens(self, plan: Plan, per_view: int) -> int:
        """As `arrange` counts them: levels take no place of their own."""
        return self.arrange.num_tokens(plan, per_view)

    def added_before(self) -> tuple[int, ...]:
        """The layers."""
        return self.layers

    def check(self, connector: ConnectorConfig, source: FeatureShape, target: LLMShape) -> None:
        """Raises ValueError unless there is one layer for every level."""
        check_layers(self, target)
        check_memory(self, connector)
        self._check_count(connector.num_levels(source))

    def parameters(self, target: LLMShape) -> int:
        """Those of `arrange`."""
        return self.arrange.parameters(target)

    def build(self, target: LLMShape) -> "LevelsToLayers":
        """The module. Raises ValueError when the language model has too few layers."""
        check_layers(self, target)
        return LevelsToLayers(self, self.arrange.build(target))

    def _check_count(self, count: int) -> None:
        count += self.blank
        if count != len(self.layers):
            raise ValueError(
                f"Levels(layers={self.layers}) names {len(self.layers)} layers, but the connector gives {count} "
                f"levels. Name one layer for each, as in layers={tuple(range(1, count + 1)) or '...'}; the levels come "
                f"from the encoder's layers after the first, for connectors that read several (Qwen3VlConfig)."
            )


class LevelsToLayers(Arrangement):
    """[views, tokens, width] -> [total, width], and as many for each level."""

    def __init__(self, config: Levels, arrange: Arrangement) -> None:
        super().__init__()
        self.config = config
        self.arrange = arrange

    def forward(self, visual: VisualTokens, plans: Sequence[Plan]) -> Placed:
        """Tokens and levels, laid out alike. Raises ValueError when there is not one layer a level."""
        self.config._check_count(len(visual.levels))
        placed: Placed = self.arrange(VisualTokens(visual.tokens), plans)
        deeper = tuple(self.arrange(VisualTokens(level), plans).tokens for level in visual.levels)
        tokens = placed.tokens
        if self.config.blank:
            tokens, deeper = torch.zeros_like(tokens), (tokens, *deeper)
        return Placed(tokens=tokens, lengths=placed.lengths, deeper=deeper, layers=self.config.layers)
