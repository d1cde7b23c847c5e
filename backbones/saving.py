"""Save a model as bfloat16 safetensors, and a tokenizer, in the ordinary transformers folder."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def save_bf16(model: PreTrainedModel, folder: Path) -> None:
    """A bfloat16 copy of the model, with its config, readable by all."""
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.config._attn_implementation = None
    half.save_pretrained(str(folder))
    (folder / "model.safetensors").chmod(0o644)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The tokenizer's files; `tokenizer.json` without white space, which is more than half of it."""
    tokenizer.save_pretrained(str(folder))
    (folder / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(pretty=False), encoding="utf-8")
