"""Parameters of common vision towers and decoders in closed form, in the names that a config.json gives its numbers.

Every form is a product and sum that Python reads too; the tests evaluate each and hold it to the counted model.
"""

from isthmus.encoders import EncoderConfig, StackedVisionEncoder, VideoEncoder, VisionEncoder
from isthmus.llms import CausalLM, LLMConfig
from isthmus.llms.base import read_config
from isthmus.weights import resolve_model

_BLOCKS = (
    "num_hidden_layers * (4 * hidden_size * (hidden_size + 1) + 2 * hidden_size * intermediate_size "
    "+ intermediate_size + hidden_size + 4 * hidden_size)"
)
_PATCH = "hidden_size * num_channels * patch_size ** 2"
_PLACES = "(image_size // patch_size) ** 2"
TOWERS = {
    "clip_vision_model": f"{_BLOCKS} + {_PATCH} + ({_PLACES} + 1) * hidden_size + 3 * hidden_size",
    "siglip_vision_model": f"{_BLOCKS} + {_PATCH} + hidden_size + {_PLACES} * hidden_size",
    "blip_2_vision_model": f"{_BLOCKS} + hidden_size * 3 * patch_size ** 2 + hidden_size "
    f"+ ({_PLACES} + 1) * hidden_size + hidden_size",
}
"""Blocks, patch embedding, positions; then what else stands before the blocks."""
_FINAL_NORM = " + 2 * hidden_size"

_TABLES = "(2 - tie_word_embeddings) * vocab_size * hidden_size"
_HEADS = "(num_attention_heads + num_key_value_heads) * head_dim"
DECODERS = {
    "llama": f"{_TABLES} + num_hidden_layers * (2 * hidden_size * {_HEADS} + 3 * hidden_size * intermediate_size "
    "+ 2 * hidden_size) + hidden_size",
    "qwen2": f"{_TABLES} + num_hidden_layers * (2 * hidden_size * {_HEADS} + (num_attention_heads "
    "+ 2 * num_key_value_heads) * head_dim + 3 * hidden_size * intermediate_size + 2 * hidden_size) + hidden_size",
    "opt": f"{_TABLES} + (max_position_embeddings + 2) * hidden_size + num_hidden_layers * (4 * hidden_size "
    "* (hidden_size + 1) + 2 * hidden_size * ffn_dim + ffn_dim + hidden_size + 4 * hidden_size) + 2 * hidden_size",
}
DECODERS["mistral"] = DECODERS["llama"]
"""Embeddings and output head, layers, final norm."""


def tower_form(encoder: EncoderConfig) -> str | None:
    """The form of a vision tower's parameters, `num_hidden_layers` being the blocks that are run; None for others."""
    tower = encoder.tower if isinstance(encoder, (StackedVisionEncoder, VideoEncoder)) else encoder
    if not isinstance(tower, VisionEncoder):
        return None
    config = tower.trimmed()
    form = TOWERS.get(config.model_type) if getattr(config, "qkv_bias", True) else None
    return form if form is None or not tower.final_norm else form + _FINAL_NORM


def decoder_form(llm: LLMConfig) -> str | None:
    """The form of a decoder's parameters without adapters; None for other kinds, and for options that alter it."""
    if not isinstance(llm, CausalLM):
        return None
    config = read_config(resolve_model(llm.name))
    width = getattr(config, "word_embed_proj_dim", config.hidden_size)
    plain = width == config.hidden_size and getattr(config, "do_layer_norm_before", True)
    biased = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    return DECODERS.get(config.model_type) if plain and not biased else None
