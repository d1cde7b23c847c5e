"""A batch as QLLaMA reads it: matching, contrast and writing in one pass, with a mask each."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.connectors.qformer_layers import Pattern
from isthmus.connectors.qllama import QLlama, QLlamaRead
from isthmus.connectors.reading import Part, Vectors, supervised
from isthmus.features import Captions, Features, Text

PATTERNS: dict[Part, Pattern] = {"match": "bidirectional", "contrast": "uni-modal", "write": "causal"}


class QLlamaReading:
    """Passes over images and captions, computed when they are first used.

    Contrast alone takes a pass of the texts and, if asked for, one of the queries. With matching or writing announced,
    `joint` is the one pass of all announced parts, in the order match, contrast, write.
    """

    def __init__(self, module: QLlama, features: Features | None, captions: Captions | None) -> None:
        assert module.heads is not None
        self.module, self.heads = module, module.heads
        self.given, self.own = features, captions
        self.expected: dict[Part, Text] = {}

    @property
    def features(self) -> Features:
        """The batch's images."""
        assert self.given is not None, "images are asked for, but none came"
        return self.given

    @property
    def captions(self) -> Captions:
        """The batch's captions."""
        assert self.own is not None, "texts are asked for, but none came"
        return self.own

    def expect(self, part: Part, text: Text | None = None, *, alone: bool = False) -> None:
        """Say that a part will be asked for; see `Reading`. There is no dropout for which one should stay alone."""
        own = {"contrast": self.captions.contrast, "write": self.captions.write, "match": self.captions.match}
        self.expected[part] = own[part] if text is None else text

    @cached_property
    def joint(self) -> dict[Part, QLlamaRead]:
        """Every announced part of the one pass."""
        parts = [part for part in PATTERNS if part in self.expected]
        texts = [self.expected[part] for part in parts]
        views = len(self.features.tokens)
        patterns = [
            PATTERNS[part] for part, text in zip(parts, texts, strict=True) for _ in range(len(text.ids) // views)
        ]
        read = self.module.read(self.features, _stacked(texts), patterns)
        assert read.queries is not None
        assert read.text is not None
        assert read.mask is not None
        sizes = [len(text.ids) for text in texts]
        told = (torch.split(rows, sizes) for rows in (read.queries, read.text, read.mask))
        pieces = zip(parts, *told, strict=True)
        return {part: QLlamaRead(queries=one, text=two, mask=three) for part, one, two, three in pieces}

    @property
    def alone(self) -> bool:
        """Whether contrast is all that was announced."""
        return not {"match", "write"} & set(self.expected)

    @cached_property
    def queries(self) -> Tensor:
        """The queries' outputs without text."""
        if not self.alone and "contrast" in self.expected:
            queries = self.joint["contrast"].queries
        else:
            queries = self.module.read(self.features, None, ("uni-modal",)).queries
        assert queries is not None
        return queries

    @cached_property
    def told(self) -> Tensor:
        """The captions' outputs without images, [rows, length, width]."""
        if not self.alone and "contrast" in self.expected:
            told = self.joint["contrast"].text
        else:
            told = self.module.read(None, self.captions.contrast, ("uni-modal",)).text
        assert told is not None
        return told

    @cached_property
    def pooled_features(self) -> Tensor:
        """The encoder's features in one vector, not normalised."""
        pooled: Tensor = self.heads.pool_features(self.features.tokens)
        return pooled

    @cached_property
    def pooled_queries(self) -> Tensor:
        """The queries' outputs in one vector, not normalised."""
        pooled: Tensor = self.heads.pool_queries(self.queries)
        return pooled

    @cached_property
    def text_features(self) -> Tensor:
        """Each caption's output at its last token, projected, not normalised."""
        last = self.captions.contrast.mask.sum(dim=1) - 1
        rows = torch.arange(len(last), device=last.device)
        return self.told[rows, last] @ self.heads.text_projection

    def images(self, vectors: Vectors) -> Tensor:
        """One vector of length 1 an image."""
        if vectors == "features":
            pooled = self.pooled_features
        elif vectors == "queries":
            pooled = self.pooled_queries
        else:
            pooled = self.summed()
        return functional.normalize(pooled, dim=-1)[:, None]

    def summed(self) -> Tensor:
        """InternVL-G's image vector: pooled features and pooled queries, each of length 1, added."""
        return functional.normalize(self.pooled_features, dim=-1) + functional.normalize(self.pooled_queries, dim=-1)

    def texts(self) -> Tensor:
        """One vector of length 1 a caption."""
        return functional.normalize(self.text_features, dim=-1)

    def scale(self) -> Tensor:
        """exp of the learnt logarithm."""
        return self.heads.log_scale.exp()

    def seen(self) -> Tensor:
        """The encoder's tokens."""
        return self.features.tokens

    def match(self, text: Text, owner: Sequence[int], others: Tensor | None) -> Tensor:
        """Logits of pairs, the mean over the queries: from the joint pass if they were announced."""
        views = len(self.features.tokens)
        in_order = list(owner) == [row % views for row in range(len(owner))]
        if "match" in self.expected and in_order and _same(self.expected["match"], text):
            queries = self.joint["match"].queries
        else:
            features = self.features
            if others is not None:
                features = Features(
                    tokens=torch.cat([features.tokens, others]), grid=features.grid, prefix=features.prefix
                )
            queries = self.module.read(features, text, ("bidirectional",), owner).queries
        assert queries is not None
        judged: Tensor = self.heads.match(queries).mean(dim=1)
        return judged

    def write(self) -> tuple[Tensor, Tensor]:
        """Logits and ids at the supervised places."""
        self.expected.setdefault("write", self.captions.write)
        told = self.joint["write"].text
        assert told is not None
        places, ids = supervised(self.captions)
        return self.heads.write(told[:, :-1][places]), ids


def _same(first: Text, second: Text) -> bool:
    return first is second or torch.equal(first.ids, second.ids)


def _stacked(texts: list[Text]) -> Text:
    """The rows of several texts, padded to the longest."""
    longest = max(text.ids.shape[1] for text in texts)

    def widened(rows: Tensor) -> Tensor:
        return functional.pad(rows, (0, longest - rows.shape[1]))

    return Text(
        ids=torch.cat([widened(text.ids) for text in texts]), mask=torch.cat([widened(text.mask) for text in texts])
    )
