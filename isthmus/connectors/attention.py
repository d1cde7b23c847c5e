"""Multi-head attention on projected queries, keys and values; shared by the connectors that attend."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from isthmus.connectors.dropout import drop


def attend(
    queries: Float[Tensor, "rows places width"],
    keys: Float[Tensor, "rows sources width"],
    values: Float[Tensor, "rows sources width"],
    *,
    heads: int,
    mask: Bool[Tensor, "#rows #places sources"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "rows places width"]:
    """softmax(q k / sqrt(width / heads)) v, by heads. `mask` is true where a place may look.

    A row that may look nowhere gets the mean of the values, not NaN. This is torch's fused attention on CUDA, and
    wherever no gradient is taken; with gradients on the CPU it is plain products, whose backward pass is faster for
    sequences as short as a connector's.
    """
    split = "rows places (heads inner) -> rows heads places inner"
    q, k, v = (rearrange(one, split, heads=heads) for one in (queries, keys, values))
    bias = None
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, torch.finfo(q.dtype).min)[:, None]
    if q.is_cuda or not torch.is_grad_enabled():
        answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    else:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        answer = drop(weights.to(v.dtype), dropout) @ v
    joined: Tensor = rearrange(answer, "rows heads places inner -> rows places (heads inner)")
    return joined
