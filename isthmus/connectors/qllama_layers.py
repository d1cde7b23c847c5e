"""The layers of QLLaMA: LLaMA's, with cross-attention on the queries between self-attention and feed-forward."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.attention import attend

Pair = tuple[Tensor, Tensor]


class SelfAttention(nn.Module):
    """LLaMA's: norm, rotary positions, no biases, residual."""

    def __init__(self, width: int, *, heads: int, eps: float, theta: float) -> None:
        super().__init__()
        self.heads, self.theta = heads, theta
        self.norm = nn.RMSNorm(width, eps=eps)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(
        self, hidden: Float[Tensor, "rows places width"], mask: Bool[Tensor, "rows places places"] | None
    ) -> Float[Tensor, "rows places width"]:
        """`mask` is true where a place may look."""
        normed = self.norm(hidden)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        query, key = (rotated(part(normed), places, self.heads, self.theta) for part in (self.query, self.key))
        looked: Tensor = hidden + self.out(attend(query, key, self.value(normed), heads=self.heads, mask=mask))
        return looked


class CrossAttention(nn.Module):
    """Queries look at the image: a norm each, no biases, no gate, no norm after; residual."""

    def __init__(self, width: int, vision: int, *, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.vision_norm = nn.RMSNorm(width, eps=eps), nn.RMSNorm(vision, eps=eps)
        self.query, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(vision, width, bias=False) for _ in range(2))

    def pair(self, seen: Float[Tensor, "views patches channels"]) -> Pair:
        """Keys and values of the images, once for every row that looks at them."""
        normed = self.vision_norm(seen)
        return self.key(normed), self.value(normed)

    def forward(
        self,
        queries: Float[Tensor, "rows queries width"],
        pair: Pair,
        patches: Bool[Tensor, "views 1 patches"] | None,
        owner: Int[Tensor, " rows"] | None,
    ) -> Float[Tensor, "rows queries width"]:
        """Row `i` looks at image `owner[i]`; without owners the rows are the images, once or several times over."""
        query = self.query(self.norm(queries))
        keys, values = pair
        if owner is None:
            views, count = len(keys), query.shape[1]
            joined = rearrange(query, "(times views) queries width -> views (times queries) width", views=views)
            seen = attend(joined, keys, values, heads=self.heads, mask=patches)
            seen = rearrange(seen, "views (times queries) width -> (times views) queries width", queries=count)
        else:
            mask = None if patches is None else patches[owner]
            seen = attend(query, keys[owner], values[owner], heads=self.heads, mask=mask)
        looked: Tensor = queries + self.out(seen)
        return looked


class QLlamaLayer(nn.Module):
    """Self-attention, in some layers cross-attention of the queries, then a gated feed-forward for all."""

    def __init__(self, width: int, vision: int | None, *, heads: int, ffn_width: int, eps: float, theta: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads=heads, eps=eps, theta=theta)
        self.cross = None if vision is None else CrossAttention(width, vision, heads=heads, eps=eps)
        self.norm = nn.RMSNorm(width, eps=eps)
        self.gate, self.up = (nn.Linear(width, ffn_width, bias=False) for _ in range(2))
        self.down = nn.Linear(ffn_width, width, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "rows places width"],
        mask: Bool[Tensor, "rows places places"] | None,
        num_queries: int,
        pair: Pair | None,
        patches: Bool[Tensor, "views 1 patches"] | None,
        owner: Int[Tensor, " rows"] | None,
    ) -> Float[Tensor, "rows places width"]:
        """The first `num_queries` places are queries; `pair` holds the images' keys and values."""
        hidden = self.attention(hidden, mask)
        if self.cross is not None and pair is not None:
            queries = self.cross(hidden[:, :num_queries], pair, patches, owner)
            hidden = torch.cat([queries, hidden[:, num_queries:]], dim=1)
        normed = self.norm(hidden)
        fed: Tensor = hidden + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return fed


def rotated(
    vectors: Float[Tensor, "rows places width"], places: Int[Tensor, " places"], heads: int, theta: float
) -> Float[Tensor, "rows places width"]:
    """Rotary positions in LLaMA's order: the first half of a head turns against the second."""
    inner = vectors.shape[-1] // heads
    rates = theta ** (-torch.arange(0, inner, 2, dtype=torch.float32, device=vectors.device) / inner)
    angles = repeat(places.float()[:, None] * rates, "places half -> places (heads two half)", heads=heads, two=2)
    first, second = rearrange(vectors, "rows places (heads two half) -> two rows places heads half", heads=heads, two=2)
    turned = rearrange(torch.stack([-second, first]), "two rows places heads half -> rows places (heads two half)")
    both: Tensor = vectors * angles.cos() + turned * angles.sin()
    return both.to(vectors.dtype)


def visible(pattern: str, num_queries: int, text: Bool[Tensor, "rows length"]) -> Bool[Tensor, "rows places places"]:
    """Who sees whom: `bidirectional` all, `uni-modal` each its own (text causally), `causal` text the queries too."""
    rows, length = text.shape
    total = num_queries + length
    seen = torch.ones(total, total, dtype=torch.bool, device=text.device)
    if pattern != "bidirectional":
        seen[num_queries:, num_queries:] = seen[num_queries:, num_queries:].tril()
        seen[:num_queries, num_queries:] = False
    if pattern == "uni-modal":
        seen[num_queries:, :num_queries] = False
    keys = functional.pad(text, (num_queries, 0), value=True)
    return seen[None].expand(rows, -1, -1) & keys[:, None]
