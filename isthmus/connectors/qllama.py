"""QLLaMA: learned queries and new cross-attention inside a LLaMA, which so reads images and text in one stack.

Source: InternVL (arXiv:2312.14238), section 3.2.
Checked against: OpenGVLab/InternVL `internvl_g` `modeling_qllama.py` and `modeling_internvl.py` (oracles
`internvl_g_*`).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from isthmus.connectors.base import CaptionForm, Connector, ConnectorConfig
from isthmus.connectors.fit import check_counts, check_no_levels, check_widths
from isthmus.connectors.mean_query_pool import MeanQueryPool
from isthmus.connectors.qformer_layers import Pattern
from isthmus.connectors.qllama_costs import qllama_passes
from isthmus.connectors.qllama_layers import Pair, QLlamaLayer, visible
from isthmus.connectors.qllama_start import check_llama, llama_tokenizer, start_llama
from isthmus.connectors.reading import Passes, Reading
from isthmus.features import Captions, Features, FeatureShape, Grid, LLMShape, Text, VisualTokens


@dataclass(frozen=True, kw_only=True)
class QLlamaConfig(ConnectorConfig):
    """`num_queries` visual tokens whatever the grid. The defaults are InternVL 1.0's, about 8 billion parameters."""

    num_queries: int = 96
    width: int = 4_096
    layers: int = 32
    heads: int = 32
    ffn_width: int = 11_008
    cross_every: int = 2
    """Cross-attention in layers 0, cross_every, 2 * cross_every, ..."""
    eps: float = 1e-6
    theta: float = 10_000.0
    """Base of the rotary positions."""
    start_from: str | None = None
    """A LLaMA-shaped model of the same sizes; `None`: everything starts fresh."""
    text_model: str | None = None
    """Whose tokenizer reads the text; `None`: that of `start_from`."""
    text: bool = False
    """Keep the text side and all heads: words, pooling, contrast, matching, writing."""
    vocabulary: int = 49_954
    embedding: int = 768
    """Width in which images and texts are compared."""
    pool_heads: int = 16
    temperature: float = 0.07
    """First value of the temperature; its inverse's logarithm is learnt."""

    captions: ClassVar[CaptionForm] = "llama"

    def __post_init__(self) -> None:
        check_counts(self, ("num_queries", "width", "layers", "heads", "ffn_width"))
        check_counts(self, ("cross_every", "vocabulary", "embedding"))
        if self.width % (2 * self.heads):
            raise ValueError(f"QLlamaConfig(width={self.width}) does not give heads={self.heads} an even width each.")
        if not self.temperature > 0:
            raise ValueError(f"QLlamaConfig(temperature={self.temperature}) must be above 0.")

    @property
    def aligns(self) -> bool:
        """Whether it has its text side, and with it all heads."""
        return self.text

    @property
    def num_cross(self) -> int:
        """Layers with cross-attention."""
        return -(-self.layers // self.cross_every)

    def tokenizer(self) -> Any:
        """The tokenizer of the text side. Raises ValueError when no model names one, or it has too many tokens."""
        return llama_tokenizer(self.text_model or self.start_from, self.vocabulary)

    def num_tokens(self, grid: Grid) -> int:
        """The number of queries, whatever the grid."""
        return self.num_queries

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """L [4 d d + 3 d f + 2 d] + X [2 d d + 2 d_v d + d + d_v] + d + M d + d d_l + d_l d_l + 2 d_l; the heads."""
        d, d_v, d_l = self.width, source.width, target.embedding_width
        layer = 4 * d * d + 3 * d * self.ffn_width + 2 * d
        cross = 2 * d * d + 2 * d_v * d + d + d_v
        ends = d + self.num_queries * d + d * d_l + d_l * d_l + 2 * d_l
        e = self.embedding
        pools = MeanQueryPool.count(d_v, e) + MeanQueryPool.count(d, e)
        heads = 2 * self.vocabulary * d + pools + d * e + 2 * d + 2 + 1
        return self.layers * layer + self.num_cross * cross + ends + (heads if self.text else 0)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """L [8 M d d + 4 M M d + 6 M d f] + X [4 M d d + 4 N d_v d + 4 M N d] + 2 M d_l (d + d_l); N with prefix."""
        m, d, n, d_l = self.num_queries, self.width, source.prefix + source.grid.size, target.embedding_width
        layer = 8 * m * d * d + 4 * m * m * d + 6 * m * d * self.ffn_width
        cross = 4 * m * d * d + 4 * n * source.width * d + 4 * m * n * d
        return self.layers * layer + self.num_cross * cross + 2 * m * d_l * (d + d_l)

    def alignment_flops(self, source: FeatureShape, passes: Passes, *, text_tokens: int, pairs: int) -> dict[str, int]:
        """A place's layer is 8 d d + 6 d f and its attention; all parts but mined pairs are one pass, a row each."""
        return qllama_passes(self, source, passes, text_tokens=text_tokens, pairs=pairs)

    def build(self, source: FeatureShape, target: LLMShape) -> "QLlama":
        """The module with an MLP to the language model, started from `start_from` when given.

        Raises:
            ValueError: the encoder gives several layers, or the model to start from has other sizes.
        """
        return self._made(source, target.embedding_width)

    def continues(self, earlier: ConnectorConfig) -> bool:
        """The text side and the heads may be left behind."""
        kept = ("text", "text_model", "vocabulary", "embedding", "pool_heads", "temperature")
        return isinstance(earlier, QLlamaConfig) and self == dataclasses.replace(
            earlier, **{name: getattr(self, name) for name in kept}
        )

    def build_alone(self, source: FeatureShape) -> "QLlama":
        """The module without the MLP, for the first two stages. Raises ValueError as `build`."""
        return self._made(source, None)

    def _made(self, source: FeatureShape, out_dim: int | None) -> "QLlama":
        check_no_levels(self, source)
        if self.start_from is not None:
            check_llama(
                self.start_from,
                {
                    "hidden_size": self.width,
                    "num_hidden_layers": self.layers,
                    "num_attention_heads": self.heads,
                    "num_key_value_heads": self.heads,
                    "intermediate_size": self.ffn_width,
                    "rms_norm_eps": self.eps,
                }
                | ({"vocab_size": self.vocabulary} if self.text else {}),
            )
        made = QLlama(source.width, out_dim, config=self)
        if self.start_from is not None:
            made.load_state_dict(start_llama(self.start_from, made.state_dict()))
        return made


@dataclass(frozen=True, kw_only=True)
class QLlamaRead:
    """What a pass gives after the last norm: the queries' places, the text's, and who saw whom."""

    queries: Float[Tensor, "rows queries width"] | None
    text: Float[Tensor, "rows length width"] | None
    mask: Bool[Tensor, "rows places places"] | None


class QLlamaHeads(nn.Module):
    """What compares, judges and writes."""

    def __init__(self, config: QLlamaConfig, vision: int) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding
        self.pool_features = MeanQueryPool(vision, embedding, heads=config.pool_heads)
        self.pool_queries = MeanQueryPool(width, embedding, heads=config.pool_heads)
        self.text_projection = nn.Parameter(torch.empty(width, embedding).normal_(std=width**-0.5))
        self.log_scale = nn.Parameter(torch.tensor(1 / config.temperature).log())
        self.match = nn.Linear(width, 2)
        self.write = nn.Linear(width, config.vocabulary, bias=False)


class QLlama(Connector):
    """[views, prefix + patches, width] -> [views, queries, embedding width]."""

    def __init__(self, in_dim: int, out_dim: int | None, *, config: QLlamaConfig) -> None:
        super().__init__()
        self.in_dim, self.config = in_dim, config
        width = config.width
        self.queries = nn.Parameter(torch.empty(config.num_queries, width).normal_(std=0.02))
        self.words = nn.Embedding(config.vocabulary, width) if config.text else None
        self.layers = nn.ModuleList(
            QLlamaLayer(
                width,
                in_dim if number % config.cross_every == 0 else None,
                heads=config.heads,
                ffn_width=config.ffn_width,
                eps=config.eps,
                theta=config.theta,
            )
            for number in range(config.layers)
        )
        self.norm = nn.RMSNorm(width, eps=config.eps)
        self.heads = QLlamaHeads(config, in_dim) if config.text else None
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        self.project = (
            None
            if out_dim is None
            else nn.Sequential(nn.Linear(width, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))
        )

    def forward(self, features: Features) -> VisualTokens:
        """Queries alone, then an MLP to the LLM. Raises ValueError when it was built without one."""
        if self.project is None:
            raise ValueError("This QLLaMA was built alone, without a language model to write for: use build.")
        queries = self.read(features, None, ("uni-modal",)).queries
        assert queries is not None
        return VisualTokens(self.project(queries))

    def reading(self, features: Features | None, captions: Captions | None) -> Reading:
        """A batch of images and captions as the objectives share it. Raises ValueError without the text side."""
        from isthmus.connectors.qllama_reading import QLlamaReading

        if self.heads is None:
            raise ValueError("This QLLaMA was built without its text side. Build it with QLlamaConfig(text=True).")
        return QLlamaReading(self, features, captions)

    def read(
        self,
        features: Features | None,
        text: Text | None,
        patterns: Sequence[Pattern],
        owner: Sequence[int] | None = None,
    ) -> QLlamaRead:
        """One pass. The text's rows are split evenly among `patterns`; row `i` reads image `owner[i]`.

        Without owners the rows are the images, once or several times over, and an image's keys and values serve all.
        A pass of text alone is causal, and its rotary positions begin at 0.

        Raises:
            ValueError: text without a text side, features of another width, rows that do not fit the images.
        """
        if text is not None and self.words is None:
            raise ValueError("This QLLaMA was built without its text side. Build it with QLlamaConfig(text=True).")
        count = self.config.num_queries if features is not None else 0
        rows = len(text.ids) if text is not None else 0
        hidden = [] if text is None or self.words is None else [self.words(text.ids)]
        pairs: list[Pair | None] = [None] * len(self.layers)
        patches = None
        if features is not None:
            check_widths(self, features, self.in_dim)
            rows = rows or len(features.tokens)
            if owner is None and rows % len(features.tokens):
                raise ValueError(
                    f"{rows} texts came with {len(features.tokens)} images: say with owner who reads which."
                )
            hidden.insert(0, self.queries.expand(rows, -1, -1))
            pairs = [None if layer.cross is None else layer.cross.pair(features.tokens) for layer in self._stack()]
            patches = None if features.valid_tokens is None else features.valid_tokens[:, None]
        mask = None
        if text is not None:
            parts = zip(patterns, text.mask.chunk(len(patterns)), strict=True)
            mask = torch.cat([visible(pattern, count, part) for pattern, part in parts])
        rows_of = None if owner is None else torch.tensor(owner, device=self.queries.device)
        states = torch.cat(hidden, dim=1)
        for layer, pair in zip(self._stack(), pairs, strict=True):
            states = layer(states, mask, count, pair, patches, rows_of)
        states = self.norm(states)
        return QLlamaRead(
            queries=states[:, :count] if count else None, text=None if text is None else states[:, count:], mask=mask
        )

    def _stack(self) -> list[QLlamaLayer]:
        return [layer for layer in self.layers if isinstance(layer, QLlamaLayer)]
