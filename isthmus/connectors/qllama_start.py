"""Starting a QLLaMA from a LLaMA-shaped model, and the names that published checkpoints give to its weights.

Source: InternVL (arXiv:2312.14238); OpenGVLab/InternVL `internvl_g`.
"""

from typing import Any

import torch
import transformers
from torch import Tensor

from isthmus.connectors.key_map import Entry, KeyMap
from isthmus.weights import quiet_transformers, read_tokenizer, resolve_model

_LLAMA = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
    "input_layernorm": "attention.norm",
    "post_attention_layernorm": "norm",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_CROSS = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "out",
    "norm1": "norm",
    "norm2": "vision_norm",
}


def _llama_entries(prefix: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{prefix}model.embed_tokens", ("words",)),
        Entry(f"{prefix}model.norm", ("norm",)),
        Entry(f"{prefix}lm_head", ("heads.write",)),
        *(Entry(f"{prefix}model.layers.*.{theirs}", (f"layers.*.{ours}",)) for theirs, ours in _LLAMA.items()),
    )


def _pooling_entries(official: str, ours: str) -> tuple[Entry, ...]:
    named = {"q": "query", "k": "key", "v": "value"}
    return (
        *(Entry(f"{official}.norm1_{short}", (f"{ours}.{name}_norm",)) for short, name in named.items()),
        *(Entry(f"{official}.cross_attn.{short}.weight", (f"{ours}.{name}.weight",)) for short, name in named.items()),
        *(Entry(f"{official}.cross_attn.{short}_bias", (f"{ours}.{name}.bias",)) for short, name in named.items()),
        Entry(f"{official}.cross_attn.proj", (f"{ours}.project",)),
    )


LLAMA_KEYS = KeyMap("", _llama_entries(""))
"""A LLaMA of `transformers`."""

INTERNVL_G_KEYS = KeyMap(
    "",
    (
        Entry("query_tokens", ("queries",), batched=True),
        *_llama_entries("qllama."),
        *(
            Entry(f"qllama.model.layers.*.cross_attn.{theirs}", (f"layers.*.cross.{ours}",))
            for theirs, ours in _CROSS.items()
        ),
        *_pooling_entries("clip_projector", "heads.pool_features"),
        *_pooling_entries("clip_projector2", "heads.pool_queries"),
        Entry("text_projection", ("heads.text_projection",)),
        Entry("logit_scale", ("heads.log_scale",)),
        Entry("itm_head", ("heads.match",)),
    ),
)
"""InternVL-G's stage 2, without its vision tower."""


def check_llama(name: str, wanted: dict[str, Any]) -> None:
    """Raises ValueError unless the model `name` is LLaMA-shaped with the wanted sizes (`transformers` config names)."""
    try:
        config = transformers.AutoConfig.from_pretrained(resolve_model(name), trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"Cannot read the model {name!r} to start from: {str(error).splitlines()[0]}") from error
    if config.model_type != "llama":
        raise ValueError(f"QLLaMA starts from a LLaMA-shaped model, but {name!r} is a {config.model_type!r} model.")
    wrong = [f"{key}={value!r} against {getattr(config, key)!r}" for key, value in wanted.items()
             if getattr(config, key) != value]  # fmt: skip
    if wrong:
        raise ValueError(
            f"QLLaMA cannot start from {name!r}, they differ (QLLaMA against {name!r}): {', '.join(wrong)}. "
            f"Give QLlamaConfig the sizes of that model, or start_from=None."
        )


def start_llama(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """QLLaMA's `state` with every weight that the model `name` has; queries, cross-attention and heads stay fresh."""
    with quiet_transformers():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            resolve_model(name), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    given = LLAMA_KEYS.to_ours(model.state_dict())
    return {key: given.get(key, value) for key, value in state.items()}


def llama_tokenizer(name: str | None, vocabulary: int) -> Any:
    """The tokenizer of the model `name`.

    Raises:
        ValueError: no name, no end mark, or more than `vocabulary` tokens.
    """
    if name is None:
        raise ValueError("This QLLaMA names no tokenizer to read text with: set start_from or text_model to a LLaMA.")
    tokenizer = read_tokenizer(name)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer of {name!r} has no end mark, at which QLLaMA reads a text's vector.")
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"The tokenizer of {name!r} has {len(tokenizer)} tokens, but QLLaMA was given vocabulary={vocabulary}."
        )
    return tokenizer
