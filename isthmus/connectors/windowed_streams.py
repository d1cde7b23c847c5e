"""Windowed streams: several windowed Q-Formers at once, each on an encoder layer and in its own way to shrink.

Source: the granite vision models (arXiv:2502.09927), in their fourth line, which has no paper. Each stream is added
before its own layer of the language model: `Levels(layers=..., blank=True, arrange=Anyres(digits=7))`.
Checked against: `transformers` Granite4VisionModel (oracles `granite4_vision_model*`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig
from isthmus.connectors.fit import check_features
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.windowed_qformer import GRANITE_KEYS, Shrink, WindowedQFormer, WindowedQFormerConfig
from isthmus.features import Features, FeatureShape, Grid, LLMShape, VisualTokens


@dataclass(frozen=True, kw_only=True)
class WindowedStreamsConfig(ConnectorConfig):
    """The first stream's tokens, and a level for every further stream."""

    projector: WindowedQFormerConfig = field(default_factory=WindowedQFormerConfig)
    """The sizes of every stream; its `shrink` is that of the stream."""
    streams: tuple[tuple[int, Shrink], ...] = tuple((0, shrink) for shrink in get_args(Shrink))
    """Which of the encoder's layers each stream reads (0 is the first that the encoder names), and how it shrinks."""

    def __post_init__(self) -> None:
        if not self.streams or min(layer for layer, _ in self.streams) < 0:
            raise ValueError(f"WindowedStreamsConfig(streams={self.streams}) needs one or more, of layers from 0.")
        for _, shrink in self.streams:
            replace(self.projector, shrink=shrink)

    def num_tokens(self, grid: Grid) -> int:
        """As one projector; the streams do not lie one after another."""
        return self.projector.num_tokens(grid)

    def token_grid(self, grid: Grid) -> Grid:
        """As one projector."""
        return self.projector.token_grid(grid)

    def num_levels(self, source: FeatureShape) -> int:
        """One for every stream after the first."""
        return len(self.streams) - 1

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """Those of a projector for each stream, at the width of its layer."""
        return sum(self.projector.parameters(shape, target) for shape in self._shapes(source))

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """Those of a projector for each stream, at the width of its layer."""
        return sum(self.projector.flops(shape, target) for shape in self._shapes(source))

    def build(self, source: FeatureShape, target: LLMShape) -> "WindowedStreams":
        """The module.

        Raises:
            ValueError: as `WindowedQFormerConfig.build`; a stream of a layer that does not come, or a layer unread.
        """
        shapes = self._shapes(source)
        read = {layer for layer, _ in self.streams}
        unread = set(range(1 + len(source.level_widths))) - read
        if unread:
            raise ValueError(
                f"The encoder gives {1 + len(source.level_widths)} layers, but WindowedStreamsConfig reads "
                f"{'one' if len(read) == 1 else len(read)}: nothing reads {sorted(unread)}. Name only the layers that "
                f"are read in the encoder, as in layers=(-1,), or give them streams."
            )
        made = [
            replace(self.projector, shrink=shrink).build(shape, target)
            for shape, (_, shrink) in zip(shapes, self.streams, strict=True)
        ]
        return WindowedStreams(made, source, config=self)

    def _shapes(self, source: FeatureShape) -> list[FeatureShape]:
        """What each stream's projector reads."""
        widths = (source.width, *source.level_widths)
        beyond = [layer for layer, _ in self.streams if layer >= len(widths)]
        if beyond:
            raise ValueError(
                f"WindowedStreamsConfig has streams of layers {sorted(set(beyond))}, but the encoder gives "
                f"{len(widths)} (0 to {len(widths) - 1}). Name more in the encoder, as in layers=(-2, -1)."
            )
        return [FeatureShape(width=widths[layer], grid=source.grid, prefix=source.prefix) for layer, _ in self.streams]


class WindowedStreams(Connector):
    """[views, patches, width] and levels -> [views, shrunken patches, embedding width], and as many for each level."""

    def __init__(self, made: list[WindowedQFormer], source: FeatureShape, *, config: WindowedStreamsConfig) -> None:
        super().__init__()
        self.source = source
        self.config = config
        self.streams = nn.ModuleList(made)

    def forward(self, features: Features) -> VisualTokens:
        """Every stream. Raises ValueError when width, levels or grid do not fit."""
        check_features(self, features, self.source.width, self.source.level_widths)
        layers: tuple[torch.Tensor, ...] = (features.patches, *features.levels)
        first, *rest = (
            stream(Features(tokens=layers[layer], grid=features.grid)).tokens
            for stream, (layer, _) in zip(self.streams, self.config.streams, strict=True)
        )
        return VisualTokens(first, levels=tuple(rest))


def granite_keys(shrinks: Sequence[Shrink]) -> KeyMap:
    """The names of a whole Granite4Vision against ours: averaged streams in their order, and those of the corners."""
    names, averaged = [], 0
    for shrink in shrinks:
        corner = get_args(Shrink).index(shrink) - 1
        names.append(f"layerwise_projectors.{averaged}" if corner < 0 else f"spatial_projectors.{corner}")
        averaged += corner < 0
    return KeyMap(
        "model.",
        tuple(
            Entry(f"{name}.{entry.official}", (f"streams.{number}.{entry.ours[0]}",), batched=entry.batched)
            for number, name in enumerate(names)
            for entry in GRANITE_KEYS.entries
        ),
    )
