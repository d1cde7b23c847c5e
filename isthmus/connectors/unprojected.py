"""Cross-attention of few queries over many features, without making keys and values of the features.

A score q . (K x + k) is (K^T q) . x plus a number that is the same for every x, which softmax takes away again; the
answer, the sum of p (V x + v), is V (the sum of p x) + v. So the projections can act on the side of the queries, a head
at a time. Products with the features then cost m / w of what they would, for m queries and heads of width w: half for
BLIP-2's 32 queries of heads 64 wide, forward and backward. Gain and shift of a norm before them move over likewise, so
that features of a frozen encoder need no gradient. Closed forms of costs state the usual way (`ConnectorConfig.flops`).
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.connectors.dropout import drop
from isthmus.connectors.rounding import rounded


@dataclass(frozen=True, kw_only=True)
class Unprojected:
    """Features to look at: `tokens`, and the norm whose gain and shift they still lack."""

    tokens: Float[Tensor, "rows sources channels"]
    norm: nn.LayerNorm | None = None

    @staticmethod
    def of(tokens: Float[Tensor, "rows sources channels"], norm: nn.LayerNorm | None = None) -> "Unprojected":
        """The features, standardised if a norm comes before them; under autocast rounded once, not once a product."""
        if norm is not None:
            tokens = nn.functional.layer_norm(tokens, norm.normalized_shape, None, None, norm.eps)
        return Unprojected(tokens=rounded(tokens), norm=norm)

    def whole(self) -> Float[Tensor, "rows sources channels"]:
        """The features with gain and shift."""
        return self.tokens if self.norm is None else torch.addcmul(self.norm.bias, self.tokens, self.norm.weight)

    def chosen(self, rows: Int[Tensor, " rows"]) -> "Unprojected":
        """The features of these rows."""
        return replace(self, tokens=self.tokens[rows])


def pays(tokens: Tensor, *, queries: int, width: int, heads: int) -> bool:
    """Whether so many queries a row read these features with at most half of the products, and gradients are taken.

    Tensors without content (meta) are counted the usual way.
    """
    return torch.is_grad_enabled() and not tokens.is_meta and 2 * queries * heads <= width


def attend_unprojected(
    queries: Float[Tensor, "rows places width"],
    seen: Unprojected,
    key: nn.Linear,
    value: nn.Linear,
    *,
    heads: int,
    mask: Bool[Tensor, "#rows #places sources"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "rows places width"]:
    """`attend(queries, key(x), value(x), ...)` for x = `seen.whole()`; equal to it but for rounding."""
    rows = len(queries)
    asked = rearrange(queries, "rows places (heads inner) -> heads (rows places) inner", heads=heads)
    keys, values = (rearrange(one.weight, "(heads inner) c -> heads inner c", heads=heads) for one in (key, value))
    probes = (asked * asked.shape[-1] ** -0.5) @ keys + 0.0 * key.bias.sum()  # its gradient is 0, and not missing
    if seen.norm is not None:
        probes = probes * seen.norm.weight
    probes = rearrange(probes, "heads (rows places) c -> rows (heads places) c", rows=rows)
    scores = probes @ seen.tokens.transpose(1, 2)
    if mask is not None:
        blocked = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, torch.finfo(scores.dtype).min)
        by_head = rearrange(scores, "rows (heads places) sources -> rows heads places sources", heads=heads)
        scores = (by_head + blocked[:, None]).flatten(1, 2)
    weights = drop(torch.softmax(scores, dim=-1).to(seen.tokens.dtype), dropout)
    read, whole = weights @ seen.tokens, weights.sum(dim=-1, keepdim=True)
    if seen.norm is not None:
        read = read * seen.norm.weight + whole * seen.norm.bias
    apart = "rows (heads places) c -> heads (rows places) c"
    read, whole = (rearrange(one, apart, heads=heads) for one in (read, whole))
    shift = rearrange(value.bias, "(heads inner) -> heads 1 inner", heads=heads)
    answer = read @ values.transpose(1, 2) + whole * shift
    joined: Tensor = rearrange(answer, "heads (rows places) inner -> rows places (heads inner)", rows=rows)
    return joined
