"""ITM: does this text belong to this image? Judged on true pairs and on negatives, mined or given.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; InternVL (arXiv:2312.14238), section 3.3.
Checked against: salesforce/LAVIS `blip2_qformer.py` (oracles `blip2_stage1*`) and OpenGVLab/InternVL
`modeling_internvl.py` (oracles `internvl_g_*`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from isthmus.config import check_choices
from isthmus.connectors.reading import Passes
from isthmus.data.collate import Batch
from isthmus.features import Captions, Text
from isthmus.model import Model
from isthmus.train.objectives.alignable import check_aligns
from isthmus.train.objectives.base import NotFiniteError, Objective
from isthmus.train.objectives.itc import mean_kept
from isthmus.train.objectives.shared import Shared

NEVER = -10_000.0
"""The logit of what may not be drawn; its probability is 0 unless nothing may."""

Mined = Literal["hard", "random", "given"]
Share = Literal["half", "both"]


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """For each row an image that its text does not belong to, and a text that its image does not, as columns of all.

    `kept` is false for rows that have neither.
    """

    images: Int[Tensor, " rows"]
    texts: Int[Tensor, " rows"]
    kept: Bool[Tensor, " rows"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Every judged pair: its logits, its label (1 matches), whether it counts, and its text."""

    logits: Float[Tensor, "pairs 2"]
    labels: Int[Tensor, " pairs"]
    kept: Bool[Tensor, " pairs"]
    text: Text


@dataclass(frozen=True, kw_only=True)
class ITM(Objective):
    """Cross-entropy of "matches" against "does not match", the mean over all judged pairs.

    Mined negatives give three pairs a row: its own, its text with another image, its image with another text. Rows that
    have no negative (a batch of one image) are left out, for always saying yes is nothing to learn.
    """

    negatives: Mined = "hard"
    """Drawn by the softmax of the similarities (BLIP-2), evenly, or given with the data (InternVL)."""
    given: Share = "half"
    """Of given negatives: half of the rows take theirs and half their own caption, or all rows take both."""
    same_image: bool = False
    """Other captions of the same image are no negatives (fine-tuning for retrieval); else only the own pair is none."""

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def name(self) -> str:
        """Of its loss."""
        return "itm"

    def check(self, model: Model) -> None:
        """Raises ValueError when the connector cannot judge pairs, or lacks what it is to be given."""
        check_aligns(model, self)
        if self.negatives == "given" and model.connector.captions != "llama":
            raise ValueError(
                f"ITM(negatives='given') needs texts with negatives, which {type(model.connector).__name__} does not "
                f"get. Use 'hard' or 'random'."
            )

    def passes(self) -> Passes:
        """Pairs to judge, and what mining them needs."""
        mined = self.negatives != "given"
        return Passes(match=self.each, mined=mined, contrast=mined, queries=mined)

    @property
    def each(self) -> int:
        """Pairs to judge for a row."""
        return 3 if self.negatives != "given" else 2 if self.given == "both" else 1

    def prepare(self, shared: Shared) -> None:
        """Announces the pass over given pairs, which needs no similarities."""
        if self.negatives == "given":
            shared.reading.expect("match", self.given_pairs(shared.captions)[0])

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pairs to judge."""
        return {self.name: self.each * len(batch.ids)}

    def losses(self, shared: Shared) -> dict[str, Tensor]:
        """The sum over the pairs; pairs that do not count are counted as the others' mean."""
        judged = self.judge_given(shared) if self.negatives == "given" else self.judge(shared, self.mine(shared))
        each = functional.cross_entropy(judged.logits, judged.labels, reduction="none")
        return {self.name: mean_kept(each, judged.kept) * len(each)}

    def excluded(self, shared: Shared) -> Bool[Tensor, "rows all"]:
        """What is no negative of a row."""
        return shared.same_image() if self.same_image else shared.any_comparison().own

    def chances(self, shared: Shared) -> tuple[Float[Tensor, "rows all"], Float[Tensor, "rows all"]]:
        """How likely each image is drawn for a row's text, and each text for a row's image."""
        compared, never = shared.any_comparison(), self.excluded(shared)
        logits = (compared.text_to_image.detach().float(), compared.image_to_text.detach().float())
        if self.negatives == "random":
            logits = (torch.zeros_like(logits[0]), torch.zeros_like(logits[1]))
        images, texts = (torch.softmax(one.masked_fill(never, NEVER), dim=1) for one in logits)
        return images, texts

    def mine(self, shared: Shared) -> Negatives:
        """Draw a negative image and a negative text for each row, from torch's random state."""
        part = shared.part
        if part is not None:
            assert part.images is not None
            assert part.texts is not None
            assert part.kept is not None
            return Negatives(images=part.images, texts=part.texts, kept=part.kept)
        images, texts = self.chances(shared)
        if not bool((images.isfinite() & texts.isfinite()).all()):
            raise NotFiniteError("a similarity of image and text")
        return Negatives(
            images=torch.multinomial(images, 1)[:, 0],
            texts=torch.multinomial(texts, 1)[:, 0],
            kept=~self.excluded(shared).all(dim=1),
        )

    def judge(self, shared: Shared, negatives: Negatives) -> Judged:
        """Own pairs, own texts with negative images, own images with negative texts, in this order."""
        own, other = shared.captions.match, shared.text_of(negatives.texts)
        turned, others = shared.images_of(negatives.images)
        rows, length = own.ids.shape[0], max(own.ids.shape[1], other.ids.shape[1])
        text = Text(
            ids=torch.cat([_padded(ids, length) for ids in (own.ids, own.ids, other.ids)]),
            mask=torch.cat([_padded(mask, length) for mask in (own.mask, own.mask, other.mask)]),
        )
        owner = [*range(rows), *turned, *range(rows)]
        labels = torch.cat([torch.ones(rows), torch.zeros(2 * rows)]).long().to(text.ids.device)
        logits = shared.reading.match(text, owner, others)
        return Judged(logits=logits, labels=labels, kept=negatives.kept.repeat(3), text=text)

    def given_pairs(self, captions: Captions) -> tuple[Text, Tensor, Tensor]:
        """The texts to judge (row by row with the images, once or twice over), their labels, and which count."""
        assert captions.negatives is not None, "the check has refused connectors without given negatives"
        assert captions.negatives_empty is not None
        rows = len(captions.image_ids)
        false = rows if self.given == "both" else rows - rows // 2
        true = range(rows) if self.given == "both" else range(false, rows)
        length = max(captions.negatives.ids.shape[1], captions.match.ids.shape[1])
        ids, mask = (
            torch.cat([_padded(ours, length)[:false], _padded(theirs, length)[true.start :]])
            for ours, theirs in (
                (captions.negatives.ids, captions.match.ids),
                (captions.negatives.mask, captions.match.mask),
            )
        )
        labels = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        labels[false:] = 1
        empty = torch.cat([captions.negatives_empty[:false], captions.empty[true.start :]])
        return Text(ids=ids, mask=mask), labels, ~empty

    def judge_given(self, shared: Shared) -> Judged:
        """Given negatives first, then own captions."""
        text, labels, kept = self.given_pairs(shared.captions)
        rows = len(shared.captions.image_ids)
        owner = [row % rows for row in range(len(text.ids))]
        return Judged(logits=shared.reading.match(text, owner, None), labels=labels, kept=kept, text=text)


def _padded(rows: Tensor, length: int) -> Tensor:
    return functional.pad(rows, (0, length - rows.shape[1]))
