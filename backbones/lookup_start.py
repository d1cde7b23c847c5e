"""Start a Llama's heads so that it can look things up early.

To answer from a description, a model must join neighbouring words, then match the joined words of the question with
those of the description. From a random start that takes far longer to appear than a small training lasts. Here the
heads start near that form, and everything is trained as usual. The idea is that of mimetic initialisation
(arXiv:2305.09828): queries and keys near a common projection, values and outputs near the identity; the local heads,
which write into a subspace of their own and whose rotary phase peaks a fixed number of tokens back, are added.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

SHARP_PAIRS = 5
"""Rotary pairs, the fastest ones, that tell neighbouring positions apart."""


@torch.no_grad()
def start_heads(
    model: LlamaForCausalLM, *, peak: float = 10.0, apart: float = 20.0, match: float = 1.0, copy: float = 0.06
) -> None:
    """First layer: heads that look 1, 2, 3, 4 tokens back; second: two further back, two matching; then two matching.

    All embeddings get one common direction, which leaves the softmax over tokens as it was; local heads turn it into a
    constant whose rotary phase peaks at their distance, matching heads into one that keeps them off the nearest tokens.
    """
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    common = torch.nn.functional.normalize(torch.randn(width), dim=0)
    model.model.embed_tokens.weight += 0.02 * width**0.5 * common
    read, written = _basis(width // heads, common), _basis(width // heads, common)
    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        for head in range(heads):
            rows = slice(head * width // heads, (head + 1) * width // heads)
            local = number == 0 or (number == 1 and head < 2)
            if number > 1 and head < 2:
                continue
            basis = read if local else _basis(width // heads, common)
            attention.v_proj.weight[rows] = basis
            attention.o_proj.weight[:, rows] = copy * (written if local else basis).T
            if local:
                back = 1 + head if number == 0 else 6 + 3 * head
                query, key = _local(width // heads, width, back, peak, common)
            else:
                away, here = _local(width // heads, width, 0, apart, common)
                matching = _matching(written, match)
                query, key = matching - away, matching + here
            attention.q_proj.weight[rows] += query
            attention.k_proj.weight[rows] += key


def _basis(size: int, common: Float[Tensor, "width"]) -> Float[Tensor, "size width"]:
    """Orthonormal rows without the common direction."""
    raw = torch.randn(len(common), size)
    raw -= common[:, None] * (common @ raw)[None, :]
    basis: Tensor = torch.linalg.qr(raw).Q
    return basis.T.contiguous()


def _local(
    size: int, width: int, back: int, peak: float, common: Float[Tensor, "width"]
) -> tuple[Float[Tensor, "size width"], Float[Tensor, "size width"]]:
    """Queries and keys whose product is largest between a token and the one `back` tokens before it."""
    rates = 10_000.0 ** (-torch.arange(SHARP_PAIRS) / (size // 2))
    strength = (peak * size**0.5 / SHARP_PAIRS) ** 0.5 / (width / 2) ** 0.5
    query, key = torch.zeros(size, width), torch.zeros(size, width)
    key[:SHARP_PAIRS] = strength * common
    query[:SHARP_PAIRS] = strength * torch.cos(-back * rates)[:, None] * common
    query[size // 2 : size // 2 + SHARP_PAIRS] = strength * torch.sin(-back * rates)[:, None] * common
    return query, key


def _matching(written: Float[Tensor, "size width"], match: float) -> Float[Tensor, "size width"]:
    """One projection for queries and keys of what local heads wrote, in the rotary pairs that hardly turn."""
    size = len(written)
    slow = size // 4
    basis = torch.linalg.qr(torch.randn(size, 2 * slow)).Q.T @ written
    projection = torch.zeros_like(written)
    projection[size // 2 - slow : size // 2] = match * basis[:slow]
    projection[size - slow :] = match * basis[slow:]
    return projection


@torch.no_grad()
def start_encoder_heads(model: T5ForConditionalGeneration, *, near: float = 6.0, match: float = 0.3) -> None:
    """The same for a T5 encoder, whose relative biases, shared by its layers, make local heads directly.

    Head 0 looks one token back, head 1 two tokens ahead; the others match like words elsewhere and copy what is there.
    """
    width, size = model.config.d_model, model.config.d_kv
    ahead = model.config.relative_attention_num_buckets // 2
    nowhere = torch.zeros(width)
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias[1, 0], bias[ahead + 2, 1] = near, near
    for bucket in (0, 1, 2, ahead + 1, ahead + 2):
        bias[bucket, 2:] = -near
    read, written = _basis(size, nowhere), _basis(size, nowhere)
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        for head in range(model.config.num_heads):
            rows = slice(head * size, (head + 1) * size)
            basis = read if head < 2 else _basis(size, nowhere)
            attention.v.weight[rows] = basis
            attention.o.weight[:, rows] = 0.7 * (written if head < 2 else basis).T
            if head >= 2:
                matching = match * _basis(size, nowhere)
                attention.q.weight[rows] += matching
                attention.k.weight[rows] = matching
