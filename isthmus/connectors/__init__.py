"""Connectors: `Features` become `VisualTokens`. One file an idea; a new one is its file and two lines here."""

from isthmus.connectors.average_pool import AveragePoolConfig as AveragePoolConfig
from isthmus.connectors.base import Connector as Connector
from isthmus.connectors.base import ConnectorConfig as ConnectorConfig
from isthmus.connectors.linear import LinearConfig as LinearConfig
from isthmus.connectors.mlp import MlpConfig as MlpConfig
from isthmus.connectors.pixel_shuffle import PixelShuffleConfig as PixelShuffleConfig
from isthmus.connectors.qformer import QFormerConfig as QFormerConfig

CONNECTORS: dict[str, type[ConnectorConfig]] = {
    "linear": LinearConfig,
    "mlp": MlpConfig,
    "average-pool": AveragePoolConfig,
    "pixel-shuffle": PixelShuffleConfig,
    "q-former": QFormerConfig,
}
"""Every connector, by the name used at the command line, in tables and in docs."""
