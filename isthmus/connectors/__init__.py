"""Connectors: `Features` become `VisualTokens`. One file an idea; a new one is its file and two lines here."""

from isthmus.connectors.attention_pool import AttentionPoolConfig as AttentionPoolConfig
from isthmus.connectors.audio_qformer import AudioQFormerConfig as AudioQFormerConfig
from isthmus.connectors.average_pool import AveragePoolConfig as AveragePoolConfig
from isthmus.connectors.base import Connector as Connector
from isthmus.connectors.base import ConnectorConfig as ConnectorConfig
from isthmus.connectors.c_abstractor import CAbstractorConfig as CAbstractorConfig
from isthmus.connectors.channel_concat import ChannelConcatConfig as ChannelConcatConfig
from isthmus.connectors.d_abstractor import DAbstractorConfig as DAbstractorConfig
from isthmus.connectors.gated_cross_attention import GatedCrossAttentionConfig as GatedCrossAttentionConfig
from isthmus.connectors.honeybee_mlp import HoneybeeMlpConfig as HoneybeeMlpConfig
from isthmus.connectors.honeybee_resampler import HoneybeeResamplerConfig as HoneybeeResamplerConfig
from isthmus.connectors.idefics2 import Idefics2Config as Idefics2Config
from isthmus.connectors.identity import IdentityConfig as IdentityConfig
from isthmus.connectors.instruct_qformer import InstructQFormerConfig as InstructQFormerConfig
from isthmus.connectors.ldp import LdpConfig as LdpConfig
from isthmus.connectors.ldp_v2 import LdpV2Config as LdpV2Config
from isthmus.connectors.linear import LinearConfig as LinearConfig
from isthmus.connectors.matryoshka import MatryoshkaConfig as MatryoshkaConfig
from isthmus.connectors.mlp import MlpConfig as MlpConfig
from isthmus.connectors.perceiver import PerceiverConfig as PerceiverConfig
from isthmus.connectors.pixel_shuffle import PixelShuffleConfig as PixelShuffleConfig
from isthmus.connectors.qformer import QFormerConfig as QFormerConfig
from isthmus.connectors.qllama import QLlamaConfig as QLlamaConfig
from isthmus.connectors.qwen3vl_mergers import Qwen3VlConfig as Qwen3VlConfig
from isthmus.connectors.qwen_vl import QwenVlConfig as QwenVlConfig
from isthmus.connectors.token_packer import TokenPackerConfig as TokenPackerConfig
from isthmus.connectors.video_qformer import VideoQFormerConfig as VideoQFormerConfig
from isthmus.connectors.windowed_qformer import WindowedQFormerConfig as WindowedQFormerConfig
from isthmus.connectors.windowed_streams import WindowedStreamsConfig as WindowedStreamsConfig

CONNECTORS: dict[str, type[ConnectorConfig]] = {
    "identity": IdentityConfig,
    "linear": LinearConfig,
    "mlp": MlpConfig,
    "average-pool": AveragePoolConfig,
    "pixel-shuffle": PixelShuffleConfig,
    "channel-concat": ChannelConcatConfig,
    "qwen3-vl": Qwen3VlConfig,
    "q-former": QFormerConfig,
    "instruct-q-former": InstructQFormerConfig,
    "qllama": QLlamaConfig,
    "video-q-former": VideoQFormerConfig,
    "audio-q-former": AudioQFormerConfig,
    "windowed-q-former": WindowedQFormerConfig,
    "windowed-streams": WindowedStreamsConfig,
    "perceiver": PerceiverConfig,
    "idefics2": Idefics2Config,
    "attention-pool": AttentionPoolConfig,
    "qwen-vl": QwenVlConfig,
    "matryoshka": MatryoshkaConfig,
    "gated-cross-attention": GatedCrossAttentionConfig,
    "c-abstractor": CAbstractorConfig,
    "d-abstractor": DAbstractorConfig,
    "honeybee-mlp": HoneybeeMlpConfig,
    "honeybee-resampler": HoneybeeResamplerConfig,
    "ldp": LdpConfig,
    "ldp-v2": LdpV2Config,
    "token-packer": TokenPackerConfig,
}
"""Every connector, by the name used at the command line, in tables and in docs."""
