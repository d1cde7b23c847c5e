"""Any T5-style language model of transformers: its encoder reads visual tokens and text, its decoder writes.

Source: BLIP-2 (arXiv:2301.12597) section 3.2, the FlanT5 variant. Checked against: `labels=` of the model's own
forward on embeddings (tests/llms).
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from isthmus.adapters import add_lora
from isthmus.llms.base import (
    IGNORED,
    Generation,
    Kind,
    LanguageModel,
    LLMConfig,
    TokenLosses,
    padding_id,
    read_config,
    until_end,
    weight_products,
)
from isthmus.weights import names_in, quiet_transformers, resolve_model


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderLM(LLMConfig):
    """An encoder-decoder with T5's layout: T5, Flan-T5, mT5."""

    name: str = "bundled/translator"
    """A folder, hub id or bundled name."""

    kind: ClassVar[Kind] = "encoder-decoder"

    def skeleton(self) -> nn.Module:
        """The model on the meta device: every shape, no weight; with a head of its own where the checkpoint has one."""
        return _skeleton(resolve_model(self.name))

    def flops(self, num_tokens: int) -> int:
        """FLOPs of the encoder over `num_tokens` positions, and of the decoder's keys and values of them."""
        config = read_config(resolve_model(self.name))
        model = self.skeleton()
        encoder = weight_products(model.encoder, skip=("relative_attention_bias", "embed_tokens"))  # type: ignore[arg-type]
        inner = config.num_heads * config.d_kv
        attention = 4 * config.num_layers * num_tokens**2 * inner
        products = encoder + 2 * config.num_decoder_layers * config.d_model * inner
        read = ("encoder.", ".EncDecAttention.k", ".EncDecAttention.v")
        products += sum(
            count for name, count in self.adapters().items() if name.startswith(read[0]) or name.endswith(read[1:])
        )
        return int(2 * num_tokens * products + attention)

    def kv_bytes(self, num_tokens: int) -> int:
        """Keys and values that the decoder's cross-attention keeps of `num_tokens` read positions."""
        config = read_config(resolve_model(self.name))
        inner = int(config.num_heads * config.d_kv)
        return 2 * int(config.num_decoder_layers) * inner * self.dtype.itemsize * num_tokens

    def build(self) -> "EncoderDecoderLanguageModel":
        """The model with its weights, frozen."""
        with quiet_transformers():
            model = AutoModelForSeq2SeqLM.from_pretrained(
                resolve_model(self.name), dtype=self.dtype, use_safetensors=True, trust_remote_code=False
            )
        blocks = model.decoder.block
        model = add_lora(model.eval(), self.lora)
        return EncoderDecoderLanguageModel(model, self.tokenizer(), blocks, self.max_tokens)


class EncoderDecoderLanguageModel(LanguageModel):
    """Reads embeddings in its encoder; its decoder learns, or writes, the answer."""

    def forward(
        self,
        embeddings: Float[Tensor, "rows length width"],
        mask: Bool[Tensor, "rows length"],
        labels: Int[Tensor, "rows targets"],
    ) -> TokenLosses:
        """Cross-entropy of every label that is not -100; the decoder reads the labels one step late."""
        rows, columns = (labels != IGNORED).nonzero().unbind(1)
        start = torch.full_like(labels[:, :1], self._start())
        late = torch.cat([start, labels[:, :-1]], dim=1)
        inputs = {
            "inputs_embeds": embeddings,
            "attention_mask": mask.long(),
            "decoder_input_ids": late.masked_fill(late == IGNORED, padding_id(self.tokenizer)),
        }
        logits = self._logits_at(rows * labels.shape[1] + columns, inputs)
        losses = functional.cross_entropy(logits.float(), labels[rows, columns], reduction="none")
        return TokenLosses(losses=losses, rows=rows)

    def generate(
        self,
        embeddings: Float[Tensor, "rows length width"],
        ids: Int[Tensor, "rows length"],
        mask: Bool[Tensor, "rows length"],
        options: Generation,
        stop_ids: tuple[int, ...] = (),
    ) -> list[list[int]]:
        """New token ids per row. The encoder takes embeddings alone; penalties look at the decoder's own ids."""
        inputs = {"inputs_embeds": embeddings, "attention_mask": mask.long()}
        written = self._write(inputs, options, stop_ids)[:, 1:]
        return [until_end(row, (*self.ends, *stop_ids)) for row in written.tolist()]

    def _start(self) -> int:
        start: int | None = self.model.config.decoder_start_token_id  # type: ignore[union-attr, assignment]
        return padding_id(self.tokenizer) if start is None else start


@lru_cache(maxsize=8)
def _skeleton(path: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = AutoModelForSeq2SeqLM.from_config(read_config(path), trust_remote_code=False)
        if has_own_head(path):
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))  # type: ignore
    return model


def has_own_head(path: str) -> bool:
    """Whether the output head is a table apart from the embedding, as in T5's 1.1 form and Flan-T5.

    The configs of `transformers` 5 say of every T5 that it is not; on loading, a head that the checkpoint holds stays
    apart all the same. So the names of a folder's weights are asked, else what `config.json` itself says.
    """
    names = _saved_names(Path(path))
    if names:
        return all(any(name.endswith(table) for name in names) for table in ("lm_head.weight", "shared.weight"))
    try:
        told, _ = PreTrainedConfig.get_config_dict(path)
    except OSError as error:
        raise ValueError(f"Cannot read the config of the language model {path!r}: {error}") from error
    return told.get("text_config", told).get("tie_word_embeddings", True) is False


def _saved_names(folder: Path) -> tuple[str, ...]:
    """The names of the tensors of a folder in safetensors; none where it has no such file."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return tuple(json.loads(index.read_bytes())["weight_map"])
    return names_in(whole) if whole.is_file() else ()
