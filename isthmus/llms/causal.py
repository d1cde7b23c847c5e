"""Any causal language model of transformers: visual tokens stand among the text, which reads them by attention.

Sources: LLaVA (arXiv:2304.08485) section 4.1 for tokens in place; BLIP-2 (arXiv:2301.12597) section 3.2 for tokens in
front. Checked against: `labels=` of the model's own forward, and `generate` on ids alone (tests/llms).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from isthmus.adapters import add_lora
from isthmus.llms.additions import find_layers
from isthmus.llms.base import (
    IGNORED,
    Generation,
    Kind,
    LanguageModel,
    LLMConfig,
    TokenLosses,
    check_positions,
    read_config,
    until_end,
    weight_products,
)
from isthmus.llms.packing import Packed, pack
from isthmus.weights import quiet_transformers, resolve_model

SHORT = 256
"""Positions up to which plain products train faster than fused attention in bfloat16 on a CPU
(`python -m benchmarks.short_text`)."""


@dataclass(frozen=True, kw_only=True)
class CausalLM(LLMConfig):
    """A decoder-only model: Llama, Vicuna, OPT, Qwen2, GPT-2, GPT-NeoX, Gemma and their kin."""

    name: str = "bundled/speaker"

    kind: ClassVar[Kind] = "causal"

    def skeleton(self) -> nn.Module:
        """The model on the meta device: every shape, no weight."""
        return _skeleton(resolve_model(self.name))

    def flops(self, num_tokens: int) -> int:
        """T * 2 * (weights of the layers and adapters) + 4 * L * T^2 * heads * head width; without the output head."""
        config = read_config(resolve_model(self.name))
        layers = find_layers(self.skeleton(), config.num_hidden_layers)
        attention = 4 * config.num_hidden_layers * num_tokens**2 * config.num_attention_heads * _head_width(config)
        products = weight_products(layers) + _projections(self.skeleton()) + sum(self.adapters().values())
        return int(2 * num_tokens * products + attention)

    def kv_bytes(self, num_tokens: int) -> int:
        """2 * layers * key-value heads * head width * bytes a number * positions."""
        config = read_config(resolve_model(self.name))
        heads = int(getattr(config, "num_key_value_heads", config.num_attention_heads))
        return 2 * int(config.num_hidden_layers) * heads * _head_width(config) * self.dtype.itemsize * num_tokens

    def build(self) -> "CausalLanguageModel":
        """The model with its weights, frozen. Raises ValueError when `max_tokens` is beyond its positions."""
        path = resolve_model(self.name)
        config = read_config(path)
        check_positions(config, self.max_tokens, self.name)
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=self.dtype, use_safetensors=True, trust_remote_code=False
            )
        layers = find_layers(model, config.num_hidden_layers)
        model = add_lora(model.eval(), self.lora)
        return CausalLanguageModel(model, self.tokenizer(), layers, self.max_tokens)


class CausalLanguageModel(LanguageModel):
    """Reads one sequence of embeddings; every position predicts the next token."""

    packs = False
    """Rows are read one after another in as few rows as hold them; `pack_rows` turns it on."""

    @torch.no_grad()
    def pack_rows(self) -> None:
        """Pack the rows of every batch from now on, in training.

        Raises:
            ValueError: this model's attention does not part packed rows: their losses differ from those apart.
        """
        table: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        ids = torch.arange(14, device=next(table.parameters()).device).reshape(2, 7) % len(next(table.parameters()))
        mask = torch.arange(7, device=ids.device) < torch.tensor([[7], [4]], device=ids.device)
        embeddings, labels = self.embed(ids), ids.masked_fill(~mask, IGNORED)
        training = {part: part.training for part in self.model.modules()}
        self.model.eval()
        apart = self(embeddings, mask, labels).losses
        self.packs = True
        together = self(embeddings, mask, labels).losses
        for part, mode in training.items():
            part.training = mode
        allowed = 1e-3 if embeddings.dtype == torch.float32 else 5e-2
        if not torch.allclose(apart, together, atol=allowed, rtol=allowed):
            self.packs = False
            raise ValueError(
                f"{type(self.model).__name__} cannot read packed rows: a row sees those before it (the losses of two "
                f"short rows differ by up to {float((apart - together).abs().max()):.2g}). Leave out packing."
            )

    def forward(
        self,
        embeddings: Float[Tensor, "rows length width"],
        mask: Bool[Tensor, "rows length"],
        labels: Int[Tensor, "rows length"],
    ) -> TokenLosses:
        """Cross-entropy of every label that is not -100, each predicted from the position before it.

        Rows are padded on the right, so no real position can see padding and the causal mask alone is enough: the
        attention then takes its fast path. Padding on the left is masked.
        """
        if self.packs:
            return self._packed(pack(embeddings, mask, labels, self.max_tokens))
        rows, columns = (labels[:, 1:] != IGNORED).nonzero().unbind(1)
        inputs: dict[str, Tensor] = {"inputs_embeds": embeddings}
        if not bool(mask[:, 0].all()):
            inputs |= {"attention_mask": mask.long(), "position_ids": positions(mask)}
        with self._fast_attention(embeddings):
            logits = self._logits_at(rows * labels.shape[1] + columns, inputs)
        losses = functional.cross_entropy(logits.float(), labels[rows, columns + 1], reduction="none")
        return TokenLosses(losses=losses, rows=rows)

    @contextmanager
    def _fast_attention(self, embeddings: Float[Tensor, "rows length width"]) -> Iterator[None]:
        """The model's plain attention where its backward pass beats the fused one's: short rows in bfloat16 on a CPU.

        Not where layers are computed again in the backward pass: that happens outside, and must do the same. Nor where
        both forms differ in more than rounding: the fused one has no soft cap.
        """
        low = embeddings.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        short = embeddings.device.type == "cpu" and low and embeddings.shape[1] <= SHORT
        config = self.model.config
        fused = config._attn_implementation == "sdpa"  # type: ignore[union-attr]
        fused = fused and getattr(config, "attn_logit_softcapping", None) is None
        if not (fused and short and torch.is_grad_enabled() and not self.recomputes):
            yield
            return
        self.model.set_attn_implementation("eager")  # type: ignore[operator]
        try:
            yield
        finally:
            self.model.set_attn_implementation("sdpa")  # type: ignore[operator]

    def _packed(self, packed: Packed) -> TokenLosses:
        """The losses of packed rows, in the order in which they come from rows apart."""
        rows, columns = (packed.labels[:, 1:] != IGNORED).nonzero().unbind(1)
        inputs = {"inputs_embeds": packed.embeddings, "position_ids": packed.positions}
        logits = self._logits_at(rows * packed.labels.shape[1] + columns, inputs)
        losses = functional.cross_entropy(logits.float(), packed.labels[rows, columns + 1], reduction="none")
        owner = packed.owner[rows, columns + 1]
        order = owner.argsort(stable=True)
        return TokenLosses(losses=losses[order], rows=owner[order])

    def generate(
        self,
        embeddings: Float[Tensor, "rows length width"],
        ids: Int[Tensor, "rows length"],
        mask: Bool[Tensor, "rows length"],
        options: Generation,
        stop_ids: tuple[int, ...] = (),
    ) -> list[list[int]]:
        """New token ids per row. Rows are padded on the left, so that every row's last position is real."""
        if not bool(mask[:, -1].all()):
            raise ValueError("Generation needs rows padded on the left: collate them with for_generation=True.")
        inputs = {"input_ids": ids, "inputs_embeds": embeddings, "attention_mask": mask.long()}
        written = self._write(inputs, options, stop_ids)[:, ids.shape[1] :]
        return [until_end(row, (*self.ends, *stop_ids)) for row in written.tolist()]


def positions(mask: Bool[Tensor, "rows length"]) -> Int[Tensor, "rows length"]:
    """0, 1, 2, ... over the real positions of each row; 0 at padding before them."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _head_width(config: object) -> int:
    width = getattr(config, "head_dim", None)
    if width is not None:
        return int(width)
    return int(config.hidden_size // config.num_attention_heads)  # type: ignore[attr-defined]


def _projections(model: nn.Module) -> int:
    """Weights of OPT-350m's maps between a narrow embedding and the hidden state."""
    names = ("project_in.weight", "project_out.weight")
    return sum(weight.numel() for name, weight in model.named_parameters() if name.endswith(names))


@lru_cache(maxsize=8)
def _skeleton(path: str) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(read_config(path), trust_remote_code=False)
    return model
