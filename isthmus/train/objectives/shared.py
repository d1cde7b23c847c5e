"""What the objectives of one batch compute once and share: the reading of its captions, and their similarities."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.connectors.reading import Reading, Vectors
from isthmus.data.collate import Batch
from isthmus.features import Captions, Text
from isthmus.model import VisionLanguageModel
from isthmus.train.objectives.gather import gather, gather_attached, gather_text, num_processes, process

Gradients = Literal["local", "both"]
"""Whether similarities send gradient into this process's rows alone, or into everyone's, through the gather."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """This process's images against all texts, and its texts against all images, as scaled logits.

    Row `i` is column `first + i`. Before scale and maximum, `image_vectors` and `text_vectors` hold each vector's own.
    """

    image_to_text: Float[Tensor, "rows all"]
    text_to_image: Float[Tensor, "rows all"]
    image_vectors: Float[Tensor, "rows all vectors"]
    text_vectors: Float[Tensor, "rows all vectors"]
    first: int

    @property
    def own(self) -> Bool[Tensor, "rows all"]:
        """True at each row's own pair."""
        rows, every = self.image_to_text.shape
        places = torch.arange(rows, device=self.image_to_text.device) + self.first
        return places[:, None] == torch.arange(every, device=places.device)[None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A micro-batch's share of what its whole batch was compared to give; see `whole.py`.

    `text` and `features` are those of all rows of all processes, `image_gradients` and `text_gradients` the slopes of
    each contrast's loss at this part's vectors, by the loss's name, `scale_gradients` at the scale (once a batch),
    `values` the losses' shares, `images` and `texts` the drawn negatives as columns, `kept` which rows have them.
    """

    text: Text
    features: Float[Tensor, "all patches channels"]
    image_gradients: dict[str, Tensor]
    text_gradients: dict[str, Tensor]
    scale_gradients: dict[str, Tensor]
    values: dict[str, Tensor]
    images: Int[Tensor, " rows"] | None
    texts: Int[Tensor, " rows"] | None
    kept: Bool[Tensor, " rows"] | None


class Shared:
    """One batch on its way through a model. What several objectives need is computed when first asked for."""

    def __init__(self, model: VisionLanguageModel, batch: Batch, part: Part | None = None) -> None:
        self.model, self.batch, self.part = model, batch, part
        self.comparisons: dict[tuple[Vectors, Gradients], Comparison] = {}

    @property
    def captions(self) -> Captions:
        """The batch's captions. Raises ValueError when it was collated for a language model."""
        if self.batch.captions is None:
            raise ValueError("The batch holds prompts, not captions: alignment trains a model with llm=None.")
        return self.batch.captions

    @cached_property
    def reading(self) -> Reading:
        """The connector's reading of images and captions."""
        reading: Reading = self.model.connector.reading(self.model.features(self.batch), self.captions)
        return reading

    @cached_property
    def image_ids(self) -> Int[Tensor, " all"]:
        """Which image each caption of all processes belongs to."""
        return gather(self.captions.image_ids)

    def same_image(self) -> Bool[Tensor, "rows all"]:
        """True where a caption of all processes belongs to this row's image."""
        return self.captions.image_ids[:, None] == self.image_ids[None]

    def compare(self, vectors: Vectors, gradients: Gradients) -> Comparison:
        """Similarities of this process's rows with those of all processes."""
        known = self.comparisons.get((vectors, gradients))
        if known is None:
            images, texts = self.reading.images(vectors), self.reading.texts()
            known = compare(images, texts, self.reading.scale(), gradients)
            self.comparisons[vectors, gradients] = known
        return known

    def text_of(self, columns: Int[Tensor, " rows"]) -> Text:
        """The matching texts of these columns, of all processes; padded to the longest of all."""
        every = gather_text(self.captions.match) if self.part is None else self.part.text
        return Text(ids=every.ids[columns], mask=every.mask[columns])

    def images_of(
        self, columns: Int[Tensor, " rows"]
    ) -> tuple[list[int], Float[Tensor, "rows patches channels"] | None]:
        """Where the images of these columns stand for `Reading.match`: their numbers, and those from elsewhere."""
        rows = len(self.batch.ids)
        elsewhere = list(range(rows, rows + len(columns)))
        if self.part is not None:
            shown = dataclasses.replace(self.model.features(self.batch), tokens=self.part.features[columns])
            return elsewhere, self.model.connector.reading(shown, None).seen()
        if num_processes() > 1:
            return elsewhere, gather_attached(self.reading.seen())[columns]
        return columns.tolist(), None

    def any_comparison(self) -> Comparison:
        """One that is there already, or else the queries' own."""
        known: Sequence[Comparison] = list(self.comparisons.values())
        return known[0] if known else self.compare("queries", "local")


def compare(
    images: Float[Tensor, "rows vectors embedding"],
    texts: Float[Tensor, "rows embedding"],
    scale: Float[Tensor, ""],
    gradients: Gradients,
) -> Comparison:
    """Similarities with the rows of all processes; an image's is the largest of its vectors'."""
    collect = gather if gradients == "local" else gather_attached
    images, texts = (one.float() if one.dtype in (torch.bfloat16, torch.float16) else one for one in (images, texts))
    every_image, every_text = collect(images), collect(texts)
    with torch.autocast(images.device.type, enabled=False):  # half precision would round logits of 1 / 0.07 coarsely
        by_image = torch.einsum("rve,ne->rnv", images, every_text)
        by_text = torch.einsum("re,nve->rnv", texts, every_image)
    return Comparison(
        image_to_text=by_image.max(dim=-1).values * scale,
        text_to_image=by_text.max(dim=-1).values * scale,
        image_vectors=by_image,
        text_vectors=by_text,
        first=process() * len(images),
    )
