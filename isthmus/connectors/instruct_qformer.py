"""Instruction-aware Q-Former: the question stands beside the queries in self-attention, so they look for its answer.

Source: InstructBLIP (arXiv:2305.06500), section 2.3; BLIP-2 (arXiv:2301.12597), appendix on VQA fine-tuning.
Checked against: salesforce/LAVIS `blip2_t5_instruct.py` and `blip2_vicuna_instruct.py` (oracles `instructblip_*`).
"""

import functools
from dataclasses import dataclass, field
from typing import Any, get_args

from torch import nn

from isthmus.connectors.base import Connector, ConnectorConfig, Instruction, QuestionTurn
from isthmus.connectors.fit import check_counts
from isthmus.connectors.qformer import QFormer, QFormerConfig
from isthmus.connectors.qformer_start import load_tokenizer
from isthmus.features import Features, FeatureShape, Grid, LLMShape, Text, VisualTokens


@dataclass(frozen=True, kw_only=True)
class InstructQFormerConfig(ConnectorConfig):
    """A Q-Former that reads a question of the chat. Several views of one image read the same question."""

    qformer: QFormerConfig = field(
        default_factory=lambda: QFormerConfig(text=True, text_model="google-bert/bert-base-uncased")
    )
    """Sizes, start and tokenizer; with its text side."""
    reads: QuestionTurn = "last-question"
    """Which user turn of a chat is the instruction."""
    max_text_tokens: int = 128
    """Longer instructions lose their beginning."""

    def __post_init__(self) -> None:
        check_counts(self, ("max_text_tokens",))
        if self.reads not in get_args(QuestionTurn):
            known = ", ".join(map(repr, get_args(QuestionTurn)))
            raise ValueError(f"reads must be one of {known}, but it is {self.reads!r}.")
        if not self.qformer.text:
            raise ValueError("InstructQFormerConfig reads text: give it qformer=QFormerConfig(text=True).")
        if self.max_text_tokens > self.qformer.positions:
            raise ValueError(
                f"InstructQFormerConfig(max_text_tokens={self.max_text_tokens}) is more than the Q-Former's "
                f"{self.qformer.positions} positions. Lower it."
            )

    @property
    def instruction(self) -> Instruction:
        """The question, with the tokens that begin and end a text of its tokenizer."""
        return Instruction(turn=self.reads, max_tokens=self.max_text_tokens)

    def tokenizer(self) -> Any:
        """The tokenizer of `qformer.text_model`, any that can pad. Raises ValueError when no model names one."""
        return _tokenizer(self.qformer.text_model or self.qformer.start_from, self.qformer.vocabulary)

    def continues(self, earlier: ConnectorConfig) -> bool:
        """A Q-Former of the same sizes; without its text side (BLIP-2's second stage) that starts as `qformer` says."""
        return self == earlier or self.qformer.continues(earlier)

    def place_of(self, name: str, earlier: ConnectorConfig) -> str:
        """Inside, for a Q-Former."""
        return f"qformer.{name}" if isinstance(earlier, QFormerConfig) else name

    def num_tokens(self, grid: Grid) -> int:
        """The number of queries, whatever the grid and the question."""
        return self.qformer.num_queries

    def parameters(self, source: FeatureShape, target: LLMShape) -> int:
        """The Q-Former's, with its text side."""
        return self.qformer.parameters(source, target)

    def flops(self, source: FeatureShape, target: LLMShape) -> int:
        """Those of the queries, and of the longest instruction it reads: `text_flops(max_text_tokens)`."""
        return self.qformer.flops(source, target) + self.text_flops(self.max_text_tokens)

    def text_flops(self, num_tokens: int) -> int:
        """What T text tokens add to a view: L [8 T d d + 4 M T d + 4 T (M + T) d + 4 T d f]."""
        m, d, t = self.qformer.num_queries, self.qformer.width, num_tokens
        looked = 4 * m * t * d + 4 * t * (m + t) * d
        return self.qformer.layers * (8 * t * d * d + looked + 4 * t * d * self.qformer.ffn_width)

    def build(self, source: FeatureShape, target: LLMShape) -> "InstructQFormer":
        """The module. Raises ValueError as `QFormerConfig.build`."""
        return InstructQFormer(self.qformer.build(source, target))


@functools.lru_cache(maxsize=8)
def _tokenizer(name: str | None, vocabulary: int) -> Any:
    """Read once: every batch asks for it."""
    return load_tokenizer(name, vocabulary)


class InstructQFormer(Connector):
    """[views, prefix + patches, width] and a text a view -> [views, queries, embedding width]."""

    def __init__(self, qformer: QFormer) -> None:
        super().__init__()
        self.qformer = qformer

    def forward(self, features: Features, text: Text | None = None) -> VisualTokens:
        """Queries and text see each other in every layer; the queries alone go on.

        Raises:
            ValueError: no text, or not one a view.
        """
        if text is None:
            raise ValueError(
                "InstructQFormer looks at an image for a question, but no text came. Collate the batch with "
                "Model.batch, which gives a row of text a view, or use QFormerConfig, which reads none."
            )
        read = self.qformer.read(features, text, mask="bidirectional")
        assert read.queries is not None
        assert read.text is not None
        assert isinstance(self.qformer.project, nn.Module)
        tokens = self.qformer.project(read.queries)
        if self.training:
            # Nothing reads the text's last state; in a distributed run every weight has to take part all the same.
            tokens = tokens + 0.0 * read.text.sum()
        return VisualTokens(tokens)
