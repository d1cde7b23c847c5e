"""A batch as the Q-Former's first stage reads it: the images are looked at once for all passes."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from isthmus.connectors.qformer import QFormer, Read
from isthmus.connectors.qformer_layers import Looked, Source
from isthmus.connectors.reading import Part, Vectors, supervised
from isthmus.connectors.unprojected import Unprojected
from isthmus.connectors.words import Vocabulary
from isthmus.features import Captions, Features, Text


class QFormerReading:
    """Queries alone, text alone, both together, and text that reads the queries' cached keys and values.

    Every attribute is computed when it is first used. `joint` is the last pass of images and texts together.
    """

    def __init__(self, module: QFormer, features: Features | None, captions: Captions | None) -> None:
        assert module.heads is not None
        self.module, self.heads = module, module.heads
        self.given, self.told = features, captions
        self.joint: Read | None = None
        self.expected: set[Part] = set()
        self.apart = False

    @property
    def captions(self) -> Captions:
        """The batch's captions."""
        assert self.told is not None, "texts are asked for, but none came"
        return self.told

    @cached_property
    def looked(self) -> Looked:
        """Normed features with their keys and values."""
        assert self.given is not None, "images are asked for, but none came"
        return self.module.look(self.given)

    @cached_property
    def normed(self) -> Tensor:
        """The features as `ln_vision` gives them."""
        assert self.given is not None, "images are asked for, but none came"
        return self.module.norm_features(self.given)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words of all captions, looked up once."""
        assert self.module.words is not None
        told = self.captions
        texts = [told.contrast, told.match, told.write, *([told.negatives] if told.negatives is not None else [])]
        return Vocabulary(self.module.words.weight, texts, writes="write" in self.expected)

    @cached_property
    def queries(self) -> Read:
        """The queries' own pass."""
        return self.module.read(self.looked, None, mask="uni-modal")

    @cached_property
    def words(self) -> Tensor:
        """The captions' own pass, told at their first token, [rows, 1, width]."""
        if self.together:
            return self.both[0]
        text = self.vocabulary.of(self.captions.contrast)
        words = self.module.read(None, text, mask="uni-modal", packed=True, told="first").text
        assert words is not None
        return words

    @cached_property
    def written(self) -> Tensor:
        """The captions' pass over the cached queries without each one's last token, [rows, length - 1, width]."""
        if self.together:
            return self.both[1]
        text = self.vocabulary.of(_before_last(self.captions.write))
        written = self.module.read(None, text, mask="causal", past=self.queries, packed=True).text
        assert written is not None
        return written

    @cached_property
    def both(self) -> tuple[Tensor, Tensor]:
        """`words` and `written` by one pass."""
        alone, written = self.captions.contrast, _before_last(self.captions.write)
        return self.module.tell(self.vocabulary.of(alone), self.vocabulary.of(written), self.queries)

    @property
    def together(self) -> bool:
        """Whether captions are read alone and written in one pass."""
        return {"contrast", "write"} <= self.expected and not self.apart

    def expect(self, part: Part, text: Text | None = None, *, alone: bool = False) -> None:
        """Contrast and writing become one pass of texts, unless one is to stay alone; see `Reading`.

        A part that writes shares the word matrix with those that read.
        """
        self.expected.add(part)
        self.apart |= alone

    def images(self, vectors: Vectors) -> Tensor:
        """One vector a query. Raises ValueError for other vectors than those of the queries."""
        if vectors != "queries":
            raise ValueError(
                f"A Q-Former compares its queries with texts, it has no vectors={vectors!r}. Use vectors='queries'."
            )
        assert self.queries.queries is not None
        return self.heads.image_vectors(self.queries.queries)

    def texts(self) -> Tensor:
        """One vector a caption."""
        return self.heads.text_vectors(self.words)

    def scale(self) -> Tensor:
        """One over the temperature."""
        return self.heads.temperature.reciprocal()

    def seen(self) -> Tensor:
        """What `ln_vision` gives."""
        return self.normed

    def match(self, text: Text, owner: Sequence[int], others: Tensor | None) -> Tensor:
        """Logits of pairs, the mean over the queries."""
        looked = self.looked
        if others is not None:
            if looked.patches is not None:
                raise ValueError("Padded features cannot be exchanged between processes: use features of one length.")
            looked = _joined(looked, self.module.look_at(others, None))
        worded = text if self.told is None else self.vocabulary.of(text)
        self.joint = self.module.read(looked, worded, mask="bidirectional", owner=owner, packed=True, told="none")
        assert self.joint.queries is not None
        return self.heads.judge(self.joint.queries)

    def write(self) -> tuple[Tensor, Tensor]:
        """Logits and ids at the supervised places."""
        places, ids = supervised(self.captions)
        return self.heads.write(self.written[places], self.vocabulary.weight), ids


def _before_last(text: Text) -> Text:
    """Each row without its last token, which has nothing to predict."""
    return Text(ids=text.ids[:, :-1], mask=text.mask[:, :-1] & text.mask[:, 1:])


def _joined(first: Looked, second: Looked) -> Looked:
    pairs = tuple(_both(one, other) for one, other in zip(first.pairs, second.pairs, strict=True))
    return Looked(views=first.views + second.views, pairs=pairs)


def _both(one: Source | None, other: Source | None) -> Source | None:
    if one is None or other is None:
        return None
    assert not isinstance(one, Unprojected), "passes share keys and values"
    assert not isinstance(other, Unprojected), "passes share keys and values"
    return torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]])
