"""The word matrix over one batch: every word of its texts looked up once, for all passes, and written with.

A matrix of words is large and a batch has few of them. Each lookup of its own costs a gradient as large as the matrix,
almost all zeros, and so does adding it to the others'; here the looked-up rows' gradient is added into the one that the
writer gives the matrix anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from isthmus.features import Text


@dataclass(frozen=True, kw_only=True)
class WordedText(Text):
    """Text whose words have been looked up."""

    vectors: Float[Tensor, "rows length width"]


class Vocabulary:
    """The words of some texts, looked up together; `weight` is the matrix as a writer should use it after that.

    `writes` says that one will: under autocast the matrix is then rounded here.
    """

    def __init__(
        self, weight: Float[Tensor, "vocabulary width"], texts: Sequence[Text], *, writes: bool = False
    ) -> None:
        self.full, self.weight = weight, weight
        ids = torch.cat([text.ids.flatten() for text in texts])
        self.ids = ids if ids.is_meta else torch.unique(ids)  # without content: shapes alone, for costs
        kind = weight.device.type
        if writes:
            low = not weight.is_meta and torch.is_autocast_enabled(kind)
            dtype = torch.get_autocast_dtype(kind) if low else weight.dtype
            self.vectors, self.weight = _Tied.apply(weight, self.ids, dtype)  # type: ignore[no-untyped-call]
        else:
            self.vectors = weight[self.ids]

    def of(self, text: Text) -> WordedText:
        """`text` with its words; those that are not among the texts of this vocabulary are looked up anew."""
        places = torch.searchsorted(self.ids, text.ids.contiguous()).clamp_(max=len(self.ids) - 1)
        known = text.ids.is_meta or bool((self.ids[places] == text.ids).all())
        vectors = functional.embedding(*((places, self.vectors) if known else (text.ids, self.full)))
        return WordedText(ids=text.ids, mask=text.mask, vectors=vectors)


class _Tied(torch.autograd.Function):
    """Rows of a matrix, and all of it in another format, with one gradient for both."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        ctx.set_materialize_grads(False)
        return weight[ids], weight.view_as(weight) if dtype == weight.dtype else weight.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor | None, whole: Tensor | None) -> tuple[Tensor | None, None, None]:
        (ids,) = ctx.saved_tensors
        if rows is None:
            return None if whole is None else whole.to(ctx.dtype), None, None
        full = rows.new_zeros(ctx.shape, dtype=ctx.dtype) if whole is None else whole.to(ctx.dtype, copy=True)
        return full.index_add_(0, ids, rows.to(ctx.dtype)), None, None
