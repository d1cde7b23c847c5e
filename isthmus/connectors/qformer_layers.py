"""The layers of the Q-Former: post-norm BERT layers whose queries look at the image and have their own feed-forward.

Queries and text are kept as two streams. Which stream may see which is said by what is joined as keys, and a mask hides
padding and, for a causal text, later tokens; so no pass computes what its mask would throw away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.connectors.attention import attend
from isthmus.connectors.dropout import Dropout
from isthmus.connectors.packing import Groups, Packing
from isthmus.connectors.rounding import rounded
from isthmus.connectors.unprojected import Unprojected, attend_unprojected, pays

NORM_EPS = 1e-12
Pattern = Literal["uni-modal", "bidirectional", "causal"]
Told = Literal["all", "first", "none"]
"""Which of the text's outputs a pass gives: all, each row's first ([CLS]), or none."""
Pair = tuple[Tensor, Tensor]
Source = Pair | Unprojected
"""Keys and values, or the features that they would be made of."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a pass sees besides its streams: keys and values of the image, padding, and who reads which image row."""

    pattern: Pattern
    vision: tuple[Pair, ...] = ()
    patches: Bool[Tensor, "rows 1 patches"] | None = None
    text: Bool[Tensor, "rows length"] | None = None
    owner: Int[Tensor, " rows"] | None = None
    packing: Packing | None = None
    """How the text is packed, when it is."""
    groups: Groups | None = None
    """Which rows look at which image, when an image's keys and values serve several rows."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Images that were looked at once: their keys and values in each layer that looks, and what is no padding."""

    views: int
    pairs: tuple[Source | None, ...]
    patches: Bool[Tensor, "views 1 patches"] | None = None

    def chosen(self, rows: Int[Tensor, " rows"]) -> "Looked":
        """The images of these rows."""
        return Looked(
            views=len(rows),
            pairs=tuple(None if pair is None else _chosen(pair, rows) for pair in self.pairs),
            patches=None if self.patches is None else self.patches[rows],
        )


def _chosen(pair: Source, rows: Tensor) -> Source:
    return pair.chosen(rows) if isinstance(pair, Unprojected) else (pair[0][rows], pair[1][rows])


class Attention(nn.Module):
    """Projections, attention, output projection, dropout, residual, LayerNorm."""

    def __init__(self, width: int, source: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = Dropout(dropout)

    def pair(self, source: Float[Tensor, "*sources channels"]) -> Pair:
        """Keys and values of what is looked at."""
        return self.key(source), self.value(source)

    def source(self, source: Float[Tensor, "rows sources channels"], *, queries: int) -> Source:
        """Keys and values for so many queries a row; the features themselves where looking at those is cheaper."""
        if pays(source, queries=queries, width=self.query.out_features, heads=self.heads):
            return Unprojected.of(source)
        return self.pair(source)

    def forward(
        self,
        hidden: Float[Tensor, "*all width"],
        pair: Source,
        mask: Bool[Tensor, "#rows #places sources"] | None,
        arrange: Packing | Groups | None = None,
        *,
        asks: Float[Tensor, "*all width"] | None = None,
    ) -> Float[Tensor, "*all width"]:
        """`hidden` after looking at `pair`. It may be packed, or its rows grouped by the image they look at.

        `asks` is `hidden` as the queries' matrix reads it, where that is rounded already.
        """
        query = self.query(hidden if asks is None else asks)
        if isinstance(arrange, Packing):
            seen = arrange.pack(self.see(arrange.unpack(query), pair, mask))
        elif arrange is not None:
            seen = arrange.scatter(self.see(arrange.gather(query), pair, mask))
        else:
            seen = self.see(query, pair, mask)
        return self.settle(hidden, seen)

    def see(
        self,
        query: Float[Tensor, "rows places width"],
        pair: Source,
        mask: Bool[Tensor, "#rows #places sources"] | None,
    ) -> Float[Tensor, "rows places width"]:
        """What projected queries find."""
        dropout = self.dropout.p if self.training else 0.0
        if isinstance(pair, Unprojected):
            return attend_unprojected(query, pair, self.key, self.value, heads=self.heads, mask=mask, dropout=dropout)
        return attend(query, *pair, heads=self.heads, mask=mask, dropout=dropout)

    def settle(
        self, hidden: Float[Tensor, "*all width"], seen: Float[Tensor, "*all width"]
    ) -> Float[Tensor, "*all width"]:
        """`hidden` with what it found: output projection, dropout, residual, LayerNorm."""
        settled: Tensor = self.norm(hidden + self.dropout(self.out(seen)))
        return settled


class FeedForward(nn.Module):
    """Linear, exact GELU, linear, dropout, residual, LayerNorm."""

    def __init__(self, width: int, inner: int, *, dropout: float) -> None:
        super().__init__()
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Float[Tensor, "*places width"]) -> Float[Tensor, "*places width"]:
        """Every place alone."""
        inner = functional.gelu(self.widen(hidden))
        fed: Tensor = self.norm(hidden + self.dropout(self.narrow(inner)))
        return fed


class QFormerLayer(nn.Module):
    """Self-attention shared by both streams; cross-attention for queries in some layers; a feed-forward a stream."""

    def __init__(self, width: int, vision: int | None, *, heads: int, inner: int, dropout: float, text: bool) -> None:
        super().__init__()
        self.attention = Attention(width, width, heads=heads, dropout=dropout)
        self.cross = None if vision is None else Attention(width, vision, heads=heads, dropout=dropout)
        self.query_ffn = FeedForward(width, inner, dropout=dropout)
        self.text_ffn = FeedForward(width, inner, dropout=dropout) if text else None

    def forward(
        self,
        queries: Tensor | None,
        text: Tensor | None,
        sight: Sight,
        vision: Source | None,
        past: Pair | None,
        *,
        told: Told = "all",
    ) -> tuple[Tensor | None, Tensor | None, Pair | None]:
        """Both streams after this layer, and the queries' own self-attention keys and values.

        `past` are those keys and values from an earlier pass, for a causal text that comes without queries. A
        last layer may be told for each text's first token alone, or for none: the text is then only looked at.
        """
        low_queries, low_text = (None if one is None else rounded(one) for one in (queries, text))
        own = None if low_queries is None else self.attention.pair(low_queries)
        words = None if low_text is None else self.attention.pair(low_text)
        if words is not None and sight.packing is not None:
            words = sight.packing.unpack(words[0]), sight.packing.unpack(words[1])
        new_queries, new_text = queries, text
        if queries is not None:
            assert own is not None
            new_queries = self.attention(queries, *self._query_view(own, words, sight), asks=low_queries)
            if self.cross is not None and vision is not None:
                new_queries = self.cross(new_queries, vision, sight.patches, sight.groups)
            new_queries = self.query_ffn(new_queries)
        if text is not None and told != "none":
            assert words is not None
            assert self.text_ffn is not None
            pair, mask = _text_view(own if past is None else past, words, sight)
            if told == "all":
                new_text = self.text_ffn(self.attention(text, pair, mask, sight.packing, asks=low_text))
            else:
                first = text[:, :1] if sight.packing is None else sight.packing.first(text)
                new_text = self.text_ffn(self.attention(first, pair, mask[:, :1]))
        return new_queries, new_text, own

    def tell(
        self, texts: Float[Tensor, "tokens width"], sights: Sequence[Sight], pasts: Sequence[Pair | None]
    ) -> Float[Tensor, "tokens width"]:
        """Texts of several passes without queries of their own, packed one after another, each with its own sight.

        Every matrix meets them all at once, which costs its weights and their gradients one trip, not one a pass.
        """
        attention, apart = self.attention, [len(_packed(sight).places) for sight in sights]
        low = rounded(texts)
        projected = (attention.query(low), *attention.pair(low))
        found = []
        for sight, past, *strand in zip(sights, pasts, *(torch.split(one, apart) for one in projected), strict=True):
            query, key, value = (_packed(sight).unpack(one) for one in strand)
            found.append(_packed(sight).pack(attention.see(query, *_text_view(past, (key, value), sight))))
        assert self.text_ffn is not None
        told: Tensor = self.text_ffn(attention.settle(texts, torch.cat(found)))
        return told

    def _query_view(self, own: Pair, words: Pair | None, sight: Sight) -> tuple[Pair, Tensor | None]:
        """Queries see queries; in a bidirectional pass the text as well."""
        if sight.pattern != "bidirectional" or words is None:
            return own, None
        return _joined(own, words), _with_queries(own, _padding(sight))


def _text_view(own: Pair | None, words: Pair, sight: Sight) -> tuple[Pair, Tensor]:
    """Text sees text (earlier text if causal); in all but the uni-modal pass also the queries of its image."""
    mask = _padding(sight)
    if sight.pattern == "causal":
        length = mask.shape[-1]
        mask = mask & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    if sight.pattern == "uni-modal" or own is None:
        return words, mask
    if sight.pattern == "causal" and sight.owner is not None:
        own = own[0][sight.owner], own[1][sight.owner]
    return _joined(own, words), _with_queries(own, mask)


def _packed(sight: Sight) -> Packing:
    assert sight.packing is not None, "texts of several passes come packed"
    return sight.packing


def _padding(sight: Sight) -> Tensor:
    assert sight.text is not None, "a pass with text comes with its mask"
    return sight.text[:, None, :]


def _joined(first: Pair, second: Pair) -> Pair:
    return torch.cat([first[0], second[0]], dim=1), torch.cat([first[1], second[1]], dim=1)


def _with_queries(own: Pair, mask: Tensor) -> Tensor:
    """The mask with the queries, all visible, before the text."""
    return functional.pad(mask, (own[0].shape[1], 0), value=True)
