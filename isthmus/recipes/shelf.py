"""Every connector as an arm between the bundled eye and speaker: its sizes there, and what else it needs there.

What is free is alike: 36 visual tokens, a width of 192 (the eye's), two to four layers. The rest is each paper's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from isthmus.compare.study import Arm, Study
from isthmus.config import did_you_mean
from isthmus.connectors import (
    CONNECTORS,
    AttentionPoolConfig,
    AudioQFormerConfig,
    AveragePoolConfig,
    CAbstractorConfig,
    ChannelConcatConfig,
    ConnectorConfig,
    DAbstractorConfig,
    GatedCrossAttentionConfig,
    HoneybeeMlpConfig,
    HoneybeeResamplerConfig,
    Idefics2Config,
    IdentityConfig,
    InstructQFormerConfig,
    LdpConfig,
    LdpV2Config,
    LinearConfig,
    MatryoshkaConfig,
    MlpConfig,
    PerceiverConfig,
    PixelShuffleConfig,
    QFormerConfig,
    QLlamaConfig,
    Qwen3VlConfig,
    QwenVlConfig,
    TokenPackerConfig,
    VideoQFormerConfig,
    WindowedQFormerConfig,
    WindowedStreamsConfig,
)
from isthmus.connectors.arrange import Levels

TOKENS, SIDE, WIDTH, HEADS = 36, 6, 192, 6
EYE_LAYERS = (-1, -3, -5)
"""For connectors that read several layers of the eye's six."""

Q_FORMER = QFormerConfig(num_queries=TOKENS, width=WIDTH, layers=4, heads=HEADS, ffn_width=768, dropout=0.0)
_PERCEIVER = PerceiverConfig(num_latents=TOKENS, layers=2, heads=HEADS, head_width=32)
_WINDOWED = WindowedQFormerConfig(ffn_width=768, dropout=0.0)

SIZED: dict[str, ConnectorConfig] = {
    "identity": IdentityConfig(pad=True),
    "linear": LinearConfig(),
    "mlp": MlpConfig(depth=2),
    "average-pool": AveragePoolConfig(side=SIDE),
    "pixel-shuffle": PixelShuffleConfig(factor=2),
    "channel-concat": ChannelConcatConfig(),
    "qwen3-vl": Qwen3VlConfig(),
    "q-former": Q_FORMER,
    "instruct-q-former": InstructQFormerConfig(
        qformer=replace(Q_FORMER, text=True, text_model="bundled/speaker", vocabulary=8_000, positions=64),
        max_text_tokens=48,
    ),
    "qllama": QLlamaConfig(num_queries=TOKENS, width=WIDTH, layers=4, heads=HEADS, ffn_width=512),
    "video-q-former": VideoQFormerConfig(image=replace(Q_FORMER, layers=2), num_queries=TOKENS, max_frames=8),
    "audio-q-former": AudioQFormerConfig(num_queries=TOKENS, width=WIDTH, heads=HEADS, ffn_width=768, dropout=0.0),
    "windowed-q-former": _WINDOWED,
    "windowed-streams": WindowedStreamsConfig(projector=_WINDOWED, streams=((0, "area"), (1, "area"), (2, "area"))),
    "perceiver": _PERCEIVER,
    "idefics2": Idefics2Config(num_latents=TOKENS, layers=2, heads=8, kv_heads=2, head_width=32, project_width=512),
    "attention-pool": AttentionPoolConfig(num_queries=TOKENS, width=WIDTH, heads=HEADS),
    "qwen-vl": QwenVlConfig(side=SIDE, head_width=64),
    "matryoshka": MatryoshkaConfig(tokens=TOKENS, side=SIDE),
    "gated-cross-attention": GatedCrossAttentionConfig(resampler=replace(_PERCEIVER, project=False), heads=4),
    "c-abstractor": CAbstractorConfig(side=SIDE, width=WIDTH, depth=1),
    "d-abstractor": DAbstractorConfig(side=SIDE, width=WIDTH, layers=2, heads=HEADS, ffn_width=768, dropout=0.0),
    "honeybee-mlp": HoneybeeMlpConfig(),
    "honeybee-resampler": HoneybeeResamplerConfig(
        num_queries=TOKENS, width=WIDTH, layers=2, heads=HEADS, ffn_width=768, dropout=0.0
    ),
    "ldp": LdpConfig(),
    "ldp-v2": LdpV2Config(side=SIDE),
    "token-packer": TokenPackerConfig(factor=2, width=WIDTH, heads=HEADS),
}
"""A connector of CONNECTORS that is not here stands with its defaults."""

_SEVERAL_LAYERS = ("model.encoder.layers", EYE_LAYERS)
NEEDS: dict[str, tuple[tuple[str, Any], ...]] = {
    "identity": (("train", ("llm",)),),
    "channel-concat": (_SEVERAL_LAYERS,),
    "token-packer": (_SEVERAL_LAYERS,),
    "qwen3-vl": (_SEVERAL_LAYERS, ("model.arrange", Levels(layers=(1, 2)))),
    "windowed-streams": (_SEVERAL_LAYERS, ("model.arrange", Levels(layers=(0, 1, 2), blank=True))),
}
"""What an arm changes besides its connector: the identity has nothing to learn, so the language model does."""

RATES = {"identity": (1e-4,)}
"""Rates tried in place of the study's: a pretrained language model takes far lower ones than a new connector."""


def arm(name: str) -> Arm:
    """The arm of one connector by its name. Raises ValueError for a name that is not in CONNECTORS."""
    if name not in CONNECTORS:
        raise ValueError(f"Unknown connector {name!r}.{did_you_mean(name, CONNECTORS)} See isthmus list.")
    config = SIZED[name] if name in SIZED else CONNECTORS[name]()
    return Arm(name=name, replace=(("model.connector", config), *NEEDS.get(name, ())), rates=RATES.get(name, ()))


def arms(names: Iterable[str]) -> tuple[Arm, ...]:
    """The arms of these connectors. Raises ValueError for a name that is not in CONNECTORS."""
    return tuple(arm(name) for name in names)


def with_connectors(study: Study, names: Sequence[str]) -> Study:
    """The study over these connectors in place of its arms; its text-only arm copies the first where its own is gone.

    An arm that the study has under the name of a connector stays as it is.

    Raises:
        ValueError: a name that is not in CONNECTORS, or one twice.
    """
    own = {one.name: one for one in study.arms}
    chosen = tuple(own[name] if name in own else arm(name) for name in names)
    copied = study.text_only if study.text_only is None or study.text_only in names else names[0]
    return replace(study, arms=chosen, factors=(), text_only=copied)
