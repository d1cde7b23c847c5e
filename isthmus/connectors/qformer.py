"""Q-Former: learned queries that look at the image through cross-attention, and can read text.

Source: BLIP-2 (arXiv:2301.12597), section 3.1.
Checked against: `transformers` Blip2QFormerModel (queries, and queries with text), and the parameter counts of the
paper's table 2 (107M with OPT-2.7B, and so on; ln_vision is counted here, the paper counts it with the encoder).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.connectors.base import CaptionForm, Connector, ConnectorConfig
from isthmus.connectors.dropout import Dropout
from isthmus.connectors.fit import check_counts, check_dropout, check_heads, check_no_levels, check_widths
from isthmus.connectors.normed_linear import normed_linears
from isthmus.connectors.packing import Groups, Packing, owners_of
from isthmus.connectors.qformer_costs import qformer_passes
from isthmus.connectors.qformer_heads import AlignmentHeads
from isthmus.connectors.qformer_layers import NORM_EPS, Looked, Pair, Pattern, QFormerLayer, Sight, Source, Told
from isthmus.connectors.qformer_start import check_start, load_reader_tokenizer, start_weights
from isthmus.connectors.reading import Passes, Reading
from isthmus.connectors.unprojected import Unprojected, pays
from isthmus.connectors.words import WordedText
from isthmus.features import Captions, Features, FeatureShape, Grid, LLMShape, Text, VisualTokens


@dataclass(frozen=True, kw_only=True)
class QFormerConfig(ConnectorConfig):
    """`num_queries` visual tokens whatever the grid. The defaults are BLIP-2's: BERT-base sizes."""

    num_queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_width: int = 3_072
    cross_every: int = 2
    """Cross-attention in layers 0, cross_every, 2 * cross_every, ..."""
    dropout: float = 0.1
    vision_eps: float = 1e-5
    """Of the LayerNorm on what the encoder gives: 1e-5 in LAVIS, 1e-6 in `transformers`."""
    start_from: str | None = None
    """A BERT-shaped model of the same sizes, such as bundled/reader; `None`: everything starts fresh."""
    text: bool = False
    """Keep the text side (word embeddings and text feed-forwards), which `read` needs for text."""
    vocabulary: int = 30_523
    positions: int = 512
    text_model: str | None = None
    """Whose tokenizer reads the text: a BERT-shaped model's name; `None`: that of `start_from`."""
    embedding: int = 0
    """Width in which images and texts are compared, with all heads of stage 1 (BLIP-2: 256); 0 leaves the heads out."""
    temperature: float = 0.07
    """First value of the learnt temperature that divides similarities."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights and queries. BERT's 0.02 suits a width of 768; a narrow Q-Former, whose
    scores it leaves close to uniform, leaves its plateau sooner with more."""

    captions: ClassVar[CaptionForm] = "bert"

    def __post_init__(self) -> None:
        check_counts(self, ("num_queries", "width", "layers", "heads", "ffn_width"))
        check_counts(self, ("cross_every", "vocabulary", "positions"))
        check_heads(self, self.width, self.heads)
        check_dropout(self, self.dropout)
        if not self.initializer_range > 0:
            raise ValueError(f"QFormerConfig(initializer_range={self.initializer_range}) must be above 0.")
        if self.embedding < 0 or not self.temperature > 0:
            raise ValueError(
                f"QFormerConfig(embedding={self.embedding}, temperature={self.temperature}): embedding must be 0 or "
                f"more, temperature above 0."
            )
        if self.embedding and not self.text:
            raise ValueError(f"QFormerConfig(embedding={self.embedding}) has heads for text: it needs text=True.")

    @property
    def aligns(self) -> bool:
        """Whether it has the heads that ITC, ITM and ITG train."""
        return bool(self.embedding)

    def tokenizer(self) -> Any:
        """The tokenizer of the text side, with `[DEC]`.

        Raises:
            ValueError: no model names one, or it has more tokens than `vocabulary`.
        """
        return load_reader_tokenizer(self.text_model or self.start_from, self.vocabulary)

    @property
    def num_cross(self) -> int:
        """Layers with cross-attention."""
        return -(-self.layers // self.cross_every)

    def num_tokens(self, grid: Grid) -> int:
        """The number of queries, whatever the grid."""
        return self.num_queries

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """L [4 (d d + d) + 2 d + FFN] + X [2 (d d + d) + 2 (d_v d + d) + 2 d] + 2 d + M d + d d_l + d_l + 2 d_v."""
        d, d_v, d_l = self.width, source.width, target.embedding_width
        ffn = 2 * d * self.ffn_width + self.ffn_width + d + 2 * d
        text = self.layers * ffn + (self.vocabulary + self.positions) * d if self.text else 0
        heads = AlignmentHeads.count(d, self.embedding, self.vocabulary) if self.embedding else 0
        return self.stack_parameters(d_v) + self.num_queries * d + d * d_l + d_l + 2 * d_v + text + heads

    def stack_parameters(self, d_v: int) -> int:
        """The query side of the layers, reading sources of width `d_v`, and the norm before them."""
        d = self.width
        layer = 4 * (d * d + d) + 2 * d + 2 * d * self.ffn_width + self.ffn_width + d + 2 * d
        cross = 2 * (d * d + d) + 2 * (d_v * d + d) + 2 * d
        return self.layers * layer + self.num_cross * cross + 2 * d

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """L [8 M d d + 4 M M d + 4 M d f] + X [4 M d d + 4 N d_v d + 4 M N d] + 2 M d d_l; N with prefix tokens."""
        seen = self.stack_flops(source.width, source.prefix + source.grid.size)
        return seen + 2 * self.num_queries * self.width * target.embedding_width

    def stack_flops(self, d_v: int, n: int) -> int:
        """One pass of the queries over `n` sources of width `d_v`."""
        m, d = self.num_queries, self.width
        layer = 8 * m * d * d + 4 * m * m * d + 4 * m * d * self.ffn_width
        return self.layers * layer + self.num_cross * (4 * m * d * d + 4 * n * d_v * d + 4 * m * n * d)

    def alignment_flops(self, source: FeatureShape, passes: Passes, *, text_tokens: int, pairs: int) -> dict[str, int]:
        """A token's layer is 8 d d + 4 d f and its attention; what no objective asks for is left out."""
        return qformer_passes(self, source, passes, text_tokens=text_tokens, pairs=pairs)

    def build(self, source: FeatureShape, target: LLMShape) -> "QFormer":
        """The module, started from `start_from` when given.

        Raises:
            ValueError: the encoder gives several layers, or the model to start from has other sizes.
        """
        return self._made(source, target.embedding_width)

    def continues(self, earlier: ConnectorConfig) -> bool:
        """The text side and the heads may be left behind, as BLIP-2's second stage does."""
        kept = ("text", "text_model", "vocabulary", "positions", "embedding", "temperature")
        return isinstance(earlier, QFormerConfig) and self == dataclasses.replace(
            earlier, **{name: getattr(self, name) for name in kept}
        )

    def build_alone(self, source: FeatureShape) -> "QFormer":
        """The module without a projection to a language model, for stage 1. Raises ValueError as `build`."""
        return self._made(source, None)

    def _made(self, source: FeatureShape, out_dim: int | None) -> "QFormer":
        check_no_levels(self, source)
        if self.start_from is not None:
            sizes = {
                "hidden_size": self.width,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "intermediate_size": self.ffn_width,
                "hidden_act": "gelu",
                "layer_norm_eps": NORM_EPS,
            }
            words = {"vocab_size": self.vocabulary, "max_position_embeddings": self.positions} if self.text else {}
            check_start(self.start_from, sizes | words)
        made = QFormer(source.width, out_dim, config=self)
        if self.start_from is not None:
            made.load_state_dict(start_weights(self.start_from, made.state_dict()))
        return made


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a pass of the Q-Former gives; `past` holds the queries' self-attention keys and values, a pair a layer."""

    queries: Float[Tensor, "rows queries width"] | None
    text: Float[Tensor, "text_rows length width"] | None
    past: tuple[Pair, ...] = ()


class QFormer(Connector):
    """[views, prefix + patches, width] -> [views, queries, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int | None, *, config: QFormerConfig) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.config = config
        width = config.width
        self.ln_vision = nn.LayerNorm(in_dim, eps=config.vision_eps)
        self.queries = nn.Parameter(torch.empty(config.num_queries, width))
        self.words = nn.Embedding(config.vocabulary, width) if config.text else None
        self.positions = nn.Embedding(config.positions, width) if config.text else None
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            QFormerLayer(
                width,
                in_dim if number % config.cross_every == 0 else None,
                heads=config.heads,
                inner=config.ffn_width,
                dropout=config.dropout,
                text=config.text,
            )
            for number in range(config.layers)
        )
        self.heads = (
            AlignmentHeads(width, config.embedding, config.vocabulary, temperature=config.temperature)
            if config.embedding
            else None
        )
        nn.init.normal_(self.queries, std=config.initializer_range)
        self.apply(partial(initialise, std=config.initializer_range))
        self.project = None if out_dim is None else nn.Linear(width, out_dim)

    def reading(self, features: Features | None, captions: Captions | None) -> Reading:
        """A batch of images and captions as the objectives of stage 1 share it. Raises ValueError without heads."""
        from isthmus.connectors.qformer_reading import QFormerReading

        if self.heads is None:
            raise ValueError("This Q-Former was built without its heads. Build it with text=True and embedding=256.")
        return QFormerReading(self, features, captions)

    def forward(self, features: Features) -> VisualTokens:
        """Queries alone, then the projection to the LLM. Raises ValueError when it was built without one."""
        if self.project is None:
            raise ValueError("This Q-Former was built alone, without a language model to write for: use build.")
        queries = self.read(features, None, mask="uni-modal").queries
        assert queries is not None
        return VisualTokens(self.project(queries))

    def read(
        self,
        features: Features | Looked | None,
        text: Text | None,
        *,
        mask: Pattern,
        owner: Sequence[int] | None = None,
        past: Read | None = None,
        packed: bool = False,
        told: Told = "all",
    ) -> Read:
        """One pass over images, text or both; `owner[i]` is the feature row that text row `i` reads (default: row i).

        Images may come looked at already (`look`), so that passes share their cross-attention keys and values, and
        texts with their words (`WordedText`). `packed` skips the text's padding, whose places then hold zeros; `told`
        leaves outputs out that nobody asks for.

        `uni-modal`: queries and text do not see each other (a row of queries a feature row). `bidirectional`: they all
        see each other (a row of queries a text row; an image's keys and values are computed once for all its texts).
        `causal`: queries see queries, text sees the queries and earlier text; a `past` reading of the same features
        spares their pass.

        Raises:
            ValueError: nothing to read, text without a text side, or owners and rows that do not match.
        """
        views = self._check(features, text, mask, owner, past)
        rows = None if text is None else owners_of(text, owner, views, paired=mask != "uni-modal")
        sight = Sight(pattern=mask, text=None if text is None else text.mask, owner=rows)
        queries: Tensor | None = None
        pairs: list[Source | None] = [None] * len(self.layers)
        if features is not None:
            joint = mask == "bidirectional"
            groups = Groups.of(rows, views) if joint and rows is not None else None
            each = 1 if groups is None else groups.rows.shape[1]
            looked = self.look(features, rows=each) if isinstance(features, Features) else features
            if joint and rows is not None and groups is None:
                looked = looked.chosen(rows)
            pairs, sight = list(looked.pairs), dataclasses.replace(sight, patches=looked.patches, groups=groups)
            count = text.ids.shape[0] if joint and text is not None else views
            queries = self.dropout(self.norm(self.queries).expand(count, -1, -1))
        words = None if text is None else self._embed(text)
        packing = Packing.of(text.mask) if packed and text is not None else None
        if words is not None and packing is not None:
            words, sight = packing.pack(words), dataclasses.replace(sight, packing=packing)
        kept: list[Pair] = []
        for number, layer in enumerate(self._stack()):
            earlier = past.past[number] if past is not None else None
            telling = told if number + 1 == len(self.layers) else "all"
            queries, words, own = layer(queries, words, sight, pairs[number], earlier, told=telling)
            kept += [] if own is None else [own]
        if words is not None and packing is not None and told == "all":
            words = packing.unpack(words)
        return Read(queries=queries, text=None if told == "none" else words, past=tuple(kept))

    def tell(
        self, contrast: Text, write: Text, past: Read
    ) -> tuple[Float[Tensor, "rows 1 width"], Float[Tensor, "rows length width"]]:
        """Texts alone, told at their first token, and causal texts over the queries of `past`, in one pass of both.

        As `read` with `uni-modal`, `packed` and `told="first"`, and with `causal`, `packed` and `past`; only dropout
        draws otherwise. Raises ValueError as `read`.
        """
        self._check(None, contrast, "uni-modal", None, None)
        owners_of(write, None, self._check(None, write, "causal", None, past), paired=True)
        packings = [Packing.of(one.mask) or Packing.whole(one.mask) for one in (contrast, write)]
        sights = [
            Sight(pattern="uni-modal", text=contrast.mask, packing=packings[0]),
            Sight(pattern="causal", text=write.mask, packing=packings[1]),
        ]
        words = [one.pack(self._embed(text)) for one, text in zip(packings, (contrast, write), strict=True)]
        *layers, last = self._stack()
        told = torch.cat(words)
        for layer, seen in zip(layers, past.past[:-1], strict=True):
            told = layer.tell(told, sights, (None, seen))
        first, all_of = torch.split(told, [len(one.places) for one in packings])
        _, first, _ = last(None, first, sights[0], None, None, told="first")
        _, all_of, _ = last(None, all_of, sights[1], None, past.past[-1])
        return first, packings[1].unpack(all_of)

    def look(self, features: Features, *, rows: int | None = None) -> Looked:
        """The images' cross-attention keys and values a layer, for any number of passes.

        For one pass of few `rows` of queries an image, where gradients are taken, the features themselves instead.
        """
        self._check_widths(features)
        patches, config = self.real_patches(features), self.config
        queries = config.num_queries if rows is None else rows * config.num_queries
        few = pays(features.tokens, queries=queries, width=config.width, heads=config.heads)
        if rows is not None and few:
            bare = Unprojected.of(features.tokens, self.ln_vision)
            pairs: tuple[Source | None, ...] = tuple(None if one.cross is None else bare for one in self._stack())
        else:
            pairs = self._pairs(features.tokens)
        return Looked(views=len(features.tokens), pairs=pairs, patches=patches)

    def _pairs(self, tokens: Tensor) -> tuple[Pair | None, ...]:
        """Keys and values of every layer that looks; `None` for the others."""
        crossing = [layer.cross for layer in self._stack() if layer.cross is not None]
        parts = [part for cross in crossing for part in (cross.key, cross.value)]
        made = iter(normed_linears(tokens, self.ln_vision, parts))
        return tuple(None if layer.cross is None else (next(made), next(made)) for layer in self._stack())

    def norm_features(self, features: Features) -> Float[Tensor, "views patches channels"]:
        """What `ln_vision` gives. Raises ValueError for features of another width."""
        self._check_widths(features)
        normed: Tensor = self.ln_vision(features.tokens)
        return normed

    def real_patches(self, features: Features) -> Bool[Tensor, "views 1 patches"] | None:
        """True where tokens are no padding; `None` when none are."""
        return None if features.valid_tokens is None else features.valid_tokens[:, None]

    def look_at(self, seen: Tensor, patches: Tensor | None) -> Looked:
        """Keys and values of features that `ln_vision` has normed; `patches` is true where they are no padding."""
        pairs = tuple(None if layer.cross is None else layer.cross.pair(seen) for layer in self._stack())
        return Looked(views=len(seen), pairs=pairs, patches=patches)

    def _stack(self) -> list[QFormerLayer]:
        return [layer for layer in self.layers if isinstance(layer, QFormerLayer)]

    def _embed(self, text: Text) -> Tensor:
        assert self.words is not None
        assert self.positions is not None
        length = text.ids.shape[1]
        if length > self.config.positions:
            raise ValueError(f"The text has {length} tokens but this Q-Former has {self.config.positions} positions.")
        places = torch.arange(length, device=text.ids.device)
        words = text.vectors if isinstance(text, WordedText) else self.words(text.ids)
        embedded: Tensor = self.dropout(self.norm(words + self.positions(places)))
        return embedded

    def _check(
        self,
        features: Features | Looked | None,
        text: Text | None,
        mask: Pattern,
        owner: Sequence[int] | None,
        past: Read | None,
    ) -> int:
        """Number of feature rows (or of query rows in `past`). Raises ValueError on what cannot be read."""
        if mask not in get_args(Pattern):
            raise ValueError(f"mask must be one of {', '.join(map(repr, get_args(Pattern)))}, but it is {mask!r}.")
        if features is None and text is None:
            raise ValueError("There is nothing to read: give features, text or both.")
        if text is not None and self.words is None:
            raise ValueError("This Q-Former was built without its text side. Build it with QFormerConfig(text=True).")
        if owner is not None and text is None:
            raise ValueError("owner says which image a text reads, but no text came.")
        if past is not None and (mask != "causal" or features is not None or not past.past):
            raise ValueError("A past reading (of features) serves a 'causal' text, in place of features.")
        if mask != "uni-modal" and text is not None and features is None and past is None:
            raise ValueError(f"A {mask!r} text reads an image: give features, or mask='uni-modal' for text alone.")
        if features is None:
            return past.past[0][0].shape[0] if past is not None else 0
        return features.views if isinstance(features, Looked) else features.tokens.shape[0]

    def _check_widths(self, features: Features) -> None:
        check_widths(self, features, self.in_dim)


def initialise(module: nn.Module, *, std: float) -> None:
    """BERT's initial values: N(0, std) for weights, zero for biases."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
