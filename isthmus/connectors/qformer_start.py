"""Starting a Q-Former from a BERT-shaped model: which of its weights go where.

Source: BLIP-2 (arXiv:2301.12597), section 3.1; salesforce/LAVIS `Qformer.py` and `init_Qformer`.
"""

from typing import Any

import torch
import transformers
from torch import Tensor

from isthmus.weights import quiet_transformers, read_tokenizer, resolve_model

_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention.norm",
}
_FEED_FORWARD = {"intermediate.dense": "widen", "output.dense": "narrow", "output.LayerNorm": "norm"}
_EMBEDDINGS = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.LayerNorm": "norm",
}
_WRITER = {
    "cls.predictions.transform.dense": "heads.transform",
    "cls.predictions.transform.LayerNorm": "heads.norm",
    "cls.predictions": "heads",
}
"""The head of masked language modelling, which begins as the one that writes captions."""


def check_start(name: str, wanted: dict[str, Any]) -> None:
    """Raises ValueError unless the model `name` is BERT-shaped with the wanted sizes (`transformers` config names).

    Of `vocab_size` and `max_position_embeddings` the Q-Former may have more: new rows start fresh.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(resolve_model(name), trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"Cannot read the model {name!r} to start from: {str(error).splitlines()[0]}") from error
    if config.model_type != "bert":
        raise ValueError(f"A Q-Former starts from a BERT-shaped model, but {name!r} is a {config.model_type!r} model.")
    growing = ("vocab_size", "max_position_embeddings")
    wrong = [
        f"{key}={value!r} against {getattr(config, key)!r}"
        for key, value in wanted.items()
        if (getattr(config, key) > value if key in growing else getattr(config, key) != value)
    ]
    if wrong:
        raise ValueError(
            f"The Q-Former cannot start from {name!r}, they differ (Q-Former against {name!r}): {', '.join(wrong)}. "
            f"Give QFormerConfig the sizes of that model, or start_from=None."
        )


BEGIN = "[DEC]"
"""The token that a written caption begins with."""


def load_reader_tokenizer(name: str | None, vocabulary: int) -> Any:
    """The tokenizer of the BERT-shaped model `name`, with `[DEC]` added behind its words where it has none.

    Raises:
        ValueError: no name, a tokenizer without [CLS] or [SEP], or one of more than `vocabulary` tokens.
    """
    tokenizer = _read_tokenizer(name)
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.pad_token_id is None:
        raise ValueError(f"The tokenizer of {name!r} has no [CLS], [SEP] and [PAD]: name a BERT-shaped model.")
    if BEGIN not in tokenizer.get_vocab():
        tokenizer.add_tokens([BEGIN], special_tokens=True)
    _check_vocabulary(tokenizer, name, vocabulary, f" with {BEGIN}")
    return tokenizer


def load_tokenizer(name: str | None, vocabulary: int) -> Any:
    """The tokenizer of the model `name`, of any family, for a Q-Former that reads questions and writes nothing.

    Raises:
        ValueError: no name, a tokenizer that cannot pad, or one of more than `vocabulary` tokens.
    """
    tokenizer = _read_tokenizer(name)
    if tokenizer.pad_token_id is None:
        raise ValueError(f"The tokenizer of {name!r} has no token to pad with: name a BERT-shaped model.")
    _check_vocabulary(tokenizer, name, vocabulary, "")
    return tokenizer


def _read_tokenizer(name: str | None) -> Any:
    if name is None:
        raise ValueError(
            "This Q-Former names no tokenizer to read text with: set start_from or text_model to a BERT-shaped model."
        )
    return read_tokenizer(name)


def _check_vocabulary(tokenizer: Any, name: str | None, vocabulary: int, more: str) -> None:
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"The tokenizer of {name!r} has {len(tokenizer)} tokens{more}, but the Q-Former was given "
            f"vocabulary={vocabulary}. Set vocabulary={len(tokenizer)}."
        )


def start_weights(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The Q-Former's `state` with every weight that the model `name` has put in its place.

    Self-attention and the embedding norm go to what both streams share; the text's feed-forward goes to the text and is
    copied for the queries; the head that fills masks, where the model has one, goes to the one that writes. Queries,
    cross-attention and the projection keep their fresh values.
    """
    with quiet_transformers():
        model, info = transformers.BertForMaskedLM.from_pretrained(
            resolve_model(name), dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    missing = set(info["missing_keys"])
    if body := sorted(key for key in missing if not key.startswith("cls.")):
        raise ValueError(f"The weights of {name!r} lack {body[:5]}. Save the model again.")
    started = dict(state)
    for key, value in model.state_dict().items():
        if key in missing:
            continue
        stem, _, kind = key.removeprefix("bert.").rpartition(".")
        for place in _places(stem):
            target = f"{place}.{kind}"
            if target in started:
                rows = started[target].clone()
                rows[: value.shape[0]] = value
                started[target] = rows
    return started


def _places(stem: str) -> list[str]:
    if stem in _EMBEDDINGS:
        return [_EMBEDDINGS[stem]]
    if stem in _WRITER:
        return [_WRITER[stem]]
    if not stem.startswith("encoder.layer."):
        return []
    number, _, part = stem.removeprefix("encoder.layer.").partition(".")
    if part in _LAYER:
        return [f"layers.{number}.{_LAYER[part]}"]
    inner = _FEED_FORWARD[part]
    return [f"layers.{number}.text_ffn.{inner}", f"layers.{number}.query_ffn.{inner}"]
