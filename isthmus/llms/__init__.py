"""Language models that accept embeddings: any causal or T5-style model of `transformers`, by hub id or folder."""

from isthmus.llms.additions import AddVisual, LayerAddition, LayerState, join_additions
from isthmus.llms.base import Generation, LanguageModel, LLMConfig, TokenLosses
from isthmus.llms.causal import CausalLM
from isthmus.llms.encoder_decoder import EncoderDecoderLM

LLMS: dict[str, type[LLMConfig]] = {"causal": CausalLM, "encoder-decoder": EncoderDecoderLM}
"""Every kind of language model, by its `kind`."""

__all__ = [
    "LLMS",
    "AddVisual",
    "CausalLM",
    "EncoderDecoderLM",
    "Generation",
    "LLMConfig",
    "LanguageModel",
    "LayerAddition",
    "LayerState",
    "TokenLosses",
    "join_additions",
]
