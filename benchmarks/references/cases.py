"""What the connectors are timed on: CLIP-L's features and a 4,096-wide language model, or tiny sizes for a look."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from isthmus.connectors import CONNECTORS, ConnectorConfig, QFormerConfig
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Text

PAPER = FeatureShape(width=1_024, grid=Grid(1, 24, 24))
PAPER_LLM = LLMShape(embedding_width=4_096, hidden_width=4_096, num_layers=32)
TINY = FeatureShape(width=64, grid=Grid(1, 8, 8))
TINY_LLM = LLMShape(embedding_width=48, hidden_width=48, num_layers=2)
LEVELS = {"token-packer": 4, "channel-concat": 1}
"""Further encoder layers, where a connector is made for them."""

_FEW = QFormerConfig(num_queries=5, width=16, layers=3, heads=2, ffn_width=24)
_SMALL: dict[str, dict[str, Any]] = {
    "q-former": {"num_queries": 5, "width": 16, "layers": 3, "heads": 2, "ffn_width": 24},
    "instruct-q-former": {"qformer": replace(_FEW, text=True, vocabulary=50, positions=9), "max_text_tokens": 6},
    "video-q-former": {"image": replace(_FEW, layers=2), "num_queries": 4},
    "audio-q-former": {"num_queries": 5, "width": 16, "heads": 2, "ffn_width": 24},
    "windowed-q-former": {"head_width": 64, "ffn_width": 24, "window_side": 4, "query_side": 2},
    "qllama": {"num_queries": 5, "width": 16, "layers": 3, "heads": 2, "ffn_width": 24},
    "perceiver": {"num_latents": 5, "layers": 2, "heads": 2, "head_width": 6},
    "idefics2": {"num_latents": 5, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 6, "project_width": 24},
    "attention-pool": {"num_queries": 5, "width": 16, "heads": 2},
    "qwen-vl": {"side": 3, "head_width": 12},
    "matryoshka": {"side": 3, "tokens": 5, "head_width": 16},
    "average-pool": {"side": 3},
    "c-abstractor": {"side": 3, "width": 16, "depth": 1},
    "d-abstractor": {"side": 3, "width": 16, "layers": 2, "heads": 4, "ffn_width": 24},
    "honeybee-resampler": {"num_queries": 5, "width": 16, "layers": 2, "heads": 2, "ffn_width": 24},
    "token-packer": {"width": 16, "heads": 4},
}
_PAPER: dict[str, dict[str, Any]] = {"average-pool": {"side": 12}}
_FEWER_LAYERS = {"qllama": 2}
"""Connectors too large to be timed whole, with the layers that are: a layer of each kind, at full widths."""

UNTIMED = {
    "identity": "nothing to compute",
    "windowed-streams": "several of `windowed-q-former`, one after another",
    "gated-cross-attention": "its resampler is `perceiver`; its blocks run inside the language model",
}
"""Connectors that are not timed, with the reason."""


@dataclass(frozen=True)
class Case:
    """A connector's config and the shapes around it."""

    config: ConnectorConfig
    source: FeatureShape
    target: LLMShape
    cut: str | None = None
    """What is left of the published connector, where it is not whole."""


def make_case(name: str, *, tiny: bool) -> Case:
    """The published sizes, with fewer layers where the case says so, or tiny ones."""
    source, target = (TINY, TINY_LLM) if tiny else (PAPER, PAPER_LLM)
    if name in LEVELS:
        source = replace(source, level_widths=(source.width,) * LEVELS[name])
    whole: Any = CONNECTORS[name]()
    config = replace(whole, **(_SMALL if tiny else _PAPER).get(name, {}))
    if tiny or name not in _FEWER_LAYERS:
        return Case(config, source, target)
    layers = _FEWER_LAYERS[name]
    return Case(replace(config, layers=layers), source, target, cut=f"{layers} of {whole.layers} layers")


def make_inputs(case: Case, *, batch: int, device: str, dtype: torch.dtype) -> tuple[Features, Text | None]:
    """Random features, and the longest text that the connector reads."""
    generator = torch.Generator().manual_seed(1)
    grid = case.source.grid
    layers = [
        torch.randn(batch, grid.size, width, generator=generator).to(device, dtype)
        for width in (case.source.width, *case.source.level_widths)
    ]
    features = Features(tokens=layers[0], grid=grid, levels=tuple(layers[1:]))
    asked = case.config.instruction
    if asked is None:
        return features, None
    ids = (torch.arange(asked.max_tokens) + 7).expand(batch, -1).to(device)
    return features, Text(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool))
