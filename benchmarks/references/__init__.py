"""What every connector is timed against: the class of `transformers`, or a plain module with the official names.

Both hold the connector's own weights, so that both compute the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.references import native, plain_attention, plain_honeybee, plain_maps, plain_qllama
from isthmus.connectors import (
    AttentionPoolConfig,
    AudioQFormerConfig,
    AveragePoolConfig,
    CAbstractorConfig,
    ChannelConcatConfig,
    Connector,
    ConnectorConfig,
    DAbstractorConfig,
    HoneybeeMlpConfig,
    HoneybeeResamplerConfig,
    Idefics2Config,
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
)
from isthmus.connectors.c_abstractor import C_ABSTRACTOR_KEYS
from isthmus.connectors.cross_attention import heads_of_width
from isthmus.connectors.d_abstractor import D_ABSTRACTOR_KEYS
from isthmus.connectors.honeybee_mlp import HONEYBEE_MLP_KEYS
from isthmus.connectors.honeybee_resampler import HONEYBEE_RESAMPLER_KEYS
from isthmus.connectors.idefics2 import IDEFICS2_KEYS
from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.connectors.ldp import LDP_KEYS, squeezed
from isthmus.connectors.ldp_v2 import LDP_V2_KEYS
from isthmus.connectors.matryoshka import MATRYOSHKA_KEYS
from isthmus.connectors.perceiver import PERCEIVER_KEYS
from isthmus.connectors.qformer_keys import BLIP2_NATIVE, INSTRUCTBLIP_NATIVE, below, layer_entries
from isthmus.connectors.qllama_start import INTERNVL_G_KEYS
from isthmus.connectors.qwen3vl_mergers import QWEN3VL_KEYS
from isthmus.connectors.qwen_vl import QWEN_VL_KEYS
from isthmus.connectors.token_packer import TOKEN_PACKER_KEYS
from isthmus.connectors.windowed_qformer import GRANITE_KEYS
from isthmus.features import Features, FeatureShape, LLMShape, Text


def _patches(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    told: Tensor = module(features.patches)
    return told


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A module that computes what a connector does, the names its weights have there, and how it is called."""

    told: str
    module: nn.Module
    keys: KeyMap
    call: Callable[[nn.Module, Features, Text | None], Tensor] = _patches

    def take_weights(self, connector: Connector) -> None:
        """Copies the connector's weights. Raises RuntimeError when a name or a shape differs."""
        self.module.load_state_dict(self.keys.to_official(connector.state_dict()))

    def __call__(self, features: Features, text: Text | None) -> Tensor:
        """[views, tokens, embedding width]."""
        return self.call(self.module, features, text)


def make_reference(
    config: ConnectorConfig, source: FeatureShape, target: LLMShape, *, attention: str
) -> Reference | None:
    """The reference of a connector; `None` when there is none. `attention` is the implementation in `transformers`."""
    for family in (_of_patches, _of_maps, _of_honeybee, _of_queries, _of_qformers):
        made = family(config, source, target.embedding_width, attention)
        if made is not None:
            return made
    return None


def _same(*stems: str, official: tuple[str, ...]) -> KeyMap:
    return KeyMap("", tuple(Entry(theirs, (ours,)) for ours, theirs in zip(stems, official, strict=True)))


def _of_patches(config: ConnectorConfig, source: FeatureShape, out: int, attention: str) -> Reference | None:
    width = source.width
    if isinstance(config, LinearConfig):
        return Reference(
            told="nn.Linear",
            module=nn.Sequential(nn.Linear(width, out)),
            keys=_same("project", official=("0",)),
        )
    if isinstance(config, MlpConfig) and config.depth == 2:
        keys = _same("project.0", "project.2", official=("linear_1", "linear_2"))
        return Reference(told="transformers Llava", module=native.llava(width, out), keys=keys)
    if isinstance(config, ChannelConcatConfig) and config.depth == 2:
        keys = _same("project.0", "project.2", official=("linear_1", "linear_2"))
        module = native.llava(width + sum(source.level_widths), out)
        return Reference(told="transformers Llava", module=module, keys=keys, call=_joined)
    if isinstance(config, HoneybeeMlpConfig):
        module = plain_honeybee.PlainMlp(width, out, depth=config.depth, prenorm=config.prenorm)
        return Reference(told="plain", module=module, keys=HONEYBEE_MLP_KEYS)
    return None


def _joined(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    told: Tensor = module(torch.cat([features.patches, *features.levels], dim=-1))
    return told


def _of_maps(config: ConnectorConfig, source: FeatureShape, out: int, attention: str) -> Reference | None:
    width = source.width
    if isinstance(config, AveragePoolConfig) and isinstance(config.side, int):
        keys = _same("project.*", official=("mlp_projector.*",))
        return Reference(told="plain", module=plain_maps.PlainAveragePool(width, out, config.side), keys=keys)
    if isinstance(config, PixelShuffleConfig) and config.order == "v2":
        keys = _same("project.*", official=("mlp1.*",))
        return Reference(told="plain", module=plain_maps.PlainPixelShuffle(width, out, config.factor), keys=keys)
    if isinstance(config, LdpConfig):
        return Reference(told="plain", module=plain_maps.PlainLdp(width, out, squeezed(out)), keys=LDP_KEYS)
    if isinstance(config, LdpV2Config) and isinstance(config.side, int):
        return Reference(told="plain", module=plain_maps.PlainLdpV2(width, out, config.side), keys=LDP_V2_KEYS)
    if isinstance(config, Qwen3VlConfig) and not source.level_widths:
        merger = native.Qwen3VlMerger(width, out, config.factor)
        return Reference(told="transformers Qwen3VL", module=merger, keys=QWEN3VL_KEYS)
    if isinstance(config, TokenPackerConfig):
        module = plain_maps.PlainTokenPacker(
            width,
            sum(source.level_widths) if source.level_widths else width,
            out,
            width=config.width,
            heads=config.heads,
            factor=config.factor,
        )
        return Reference(told="plain", module=module, keys=TOKEN_PACKER_KEYS, call=_levels)
    return None


def _levels(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    seen = torch.cat(features.levels, dim=-1) if features.levels else features.patches
    told: Tensor = module(features.patches, seen)
    return told


def _of_honeybee(config: ConnectorConfig, source: FeatureShape, out: int, attention: str) -> Reference | None:
    patches, width = source.grid.size, source.width
    if isinstance(config, CAbstractorConfig) and isinstance(config.side, int):
        made: nn.Module = plain_honeybee.PlainCAbstractor(
            patches, width, out, width=config.width, depth=config.depth, side=config.side
        )
        return Reference(told="plain", module=made, keys=C_ABSTRACTOR_KEYS)
    if isinstance(config, HoneybeeResamplerConfig):
        made = plain_honeybee.PlainResampler(
            width,
            out,
            queries=config.num_queries,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            inner=config.ffn_width,
        )
        return Reference(told="plain", module=made, keys=HONEYBEE_RESAMPLER_KEYS)
    if isinstance(config, DAbstractorConfig) and isinstance(config.side, int):
        made = plain_honeybee.PlainDAbstractor(
            patches,
            width,
            out,
            side=config.side,
            layer=(config.width, config.heads, config.points, config.ffn_width),
            layers=config.layers,
            pooled={"query": "query", "content": "tgt", "none": "none"}[config.pooled],
        )
        return Reference(told="plain, attention of transformers", module=made, keys=D_ABSTRACTOR_KEYS)
    return None


def _of_queries(config: ConnectorConfig, source: FeatureShape, out: int, attention: str) -> Reference | None:
    width = source.width
    if isinstance(config, PerceiverConfig) and config.project:
        made: nn.Module = plain_attention.PlainPerceiver(
            width,
            out,
            latents=config.num_latents,
            layers=config.layers,
            heads=config.heads,
            head_width=config.head_width,
        )
        inner = tuple(
            Entry(f"perceiver.{one.official}", tuple(f"resampler.{name}" for name in one.ours))
            for one in PERCEIVER_KEYS.entries
        )
        return Reference(told="plain", module=made, keys=KeyMap("", (*inner, Entry("project", ("project",)))))
    if isinstance(config, QwenVlConfig) and config.project:
        heads = heads_of_width(out, config.head_width, config)
        made = plain_attention.PlainQwenVl(width, out, queries=config.side**2, heads=heads)
        return Reference(told="plain", module=made, keys=QWEN_VL_KEYS)
    if isinstance(config, MatryoshkaConfig):
        heads = heads_of_width(width, config.head_width, config)
        made = plain_attention.PlainMatryoshka(
            width, out, queries=config.num_queries, heads=heads, tokens=config.tokens
        )
        return Reference(told="plain", module=made, keys=MATRYOSHKA_KEYS)
    if isinstance(config, AttentionPoolConfig):
        made = plain_attention.PlainAttentionPool(
            width, out, queries=config.num_queries, width=config.width, heads=config.heads
        )
        return Reference(told="plain", module=made, keys=_torch_pool_keys(joint=width == config.width))
    if isinstance(config, Idefics2Config):
        made = native.Idefics2(config, width, out, attention=attention)
        entries = tuple(replace(one, official=f"connector.{one.official}") for one in IDEFICS2_KEYS.entries)
        return Reference(told="transformers Idefics2", module=made, keys=KeyMap("", entries))
    return None


def _torch_pool_keys(*, joint: bool) -> KeyMap:
    parts = ("query", "key", "value")
    if joint:
        weights = [Entry("attention.in_proj_weight", tuple(f"attention.{part}.weight" for part in parts))]
    else:
        weights = [Entry(f"attention.{part[0]}_proj_weight", (f"attention.{part}.weight",)) for part in parts]
    kept = ("queries", "norm_queries", "norm_patches", "project")
    return KeyMap(
        "",
        (
            *weights,
            Entry("attention.in_proj_bias", tuple(f"attention.{part}.bias" for part in parts)),
            Entry("attention.out_proj", ("attention.out",)),
            *(Entry(name, (name,)) for name in kept),
        ),
    )


def _of_qformers(config: ConnectorConfig, source: FeatureShape, out: int, attention: str) -> Reference | None:
    width, grid = source.width, source.grid
    if isinstance(config, QFormerConfig) and not config.text:
        made: nn.Module = native.Blip2(config, width, out, attention=attention)
        return Reference(told="transformers Blip2", module=made, keys=BLIP2_NATIVE)
    if isinstance(config, QLlamaConfig) and not config.text:
        made = plain_qllama.PlainQLlama(config, width, out)
        keys = KeyMap("", (*INTERNVL_G_KEYS.entries, Entry("project.*", ("project.*",))))
        return Reference(told="plain", module=made, keys=keys, call=_tokens)
    if isinstance(config, InstructQFormerConfig):
        made = native.InstructBlip(config.qformer, width, out, attention=attention)
        keys = below(INSTRUCTBLIP_NATIVE, "qformer")
        return Reference(told="transformers InstructBlip", module=made, keys=keys, call=_with_text)
    if isinstance(config, WindowedQFormerConfig) and config.shrink == "area":
        made = native.granite(config, width, out, grid.rows, attention=attention)
        return Reference(told="transformers Granite4Vision", module=made, keys=GRANITE_KEYS)
    if isinstance(config, AudioQFormerConfig):
        made = native.Timed(config.sizes, width, out, steps=config.max_windows, attention=attention)
        keys = KeyMap("", _timed("audio", ""))
        return Reference(told="transformers Blip2 layers", module=made, keys=keys, call=_windows)
    if isinstance(config, VideoQFormerConfig):
        made = native.Video(config.image, config.video, width, out, steps=config.max_frames, attention=attention)
        image = (
            Entry("image.query_tokens", ("image.queries",), batched=True),
            Entry("image.vision_model.post_layernorm", ("image.ln_vision",)),
            Entry("image.qformer.layernorm", ("image.stack.norm",)),
            *layer_entries("image.qformer.encoder.layer", "image.stack.layers", inner="attention"),
        )
        keys = KeyMap("", (*image, *_timed("video", "video.")))
        return Reference(told="transformers Blip2 layers", module=made, keys=keys, call=_frames)
    return None


def _timed(ours: str, official: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{official}queries", (f"{ours}.queries",), batched=True),
        Entry(f"{official}positions", (f"{ours}.positions",)),
        Entry(f"{official}qformer.layernorm", (f"{ours}.stack.norm",)),
        *layer_entries(f"{official}qformer.encoder.layer", f"{ours}.stack.layers", inner="attention"),
        Entry(f"{official}project", ("project",)),
    )


def _tokens(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    told: Tensor = module(features.tokens)
    return told


def _with_text(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    assert text is not None
    told: Tensor = module(features.tokens, text.ids, text.mask)
    return told


def _windows(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    told: Tensor = module(features.patches.unflatten(1, (features.grid.frames, -1)))
    return told


def _frames(module: nn.Module, features: Features, text: Text | None) -> Tensor:
    told: Tensor = module(features.tokens, features.grid.frames)
    return told
