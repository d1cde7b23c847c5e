"""ITC: image-text contrast over the captions of all processes.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; InternVL (arXiv:2312.14238), section 3.3.
Checked against: salesforce/LAVIS `blip2_qformer.py` (oracles `blip2_stage1*`) and OpenGVLab/InternVL
`modeling_internvl.py` (oracles `internvl_g_*`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.config import check_choices
from isthmus.connectors.reading import Passes, Vectors
from isthmus.data.collate import Batch
from isthmus.model import Model
from isthmus.train.objectives.alignable import check_aligns, check_smoothing
from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.shared import Comparison, Gradients, Part, Shared


@dataclass(frozen=True, kw_only=True)
class ITC(Objective):
    """Cross-entropy of the similarities, image to text and text to image, the mean of both directions."""

    label_smoothing: float = 0.1
    gradients: Gradients = "local"
    """BLIP-2's released code detaches what it gathers ("local"); InternVL sends gradient to both sides ("both")."""
    same_image: bool = False
    """Captions of one image are positives of each other and share the target (fine-tuning for retrieval)."""
    vectors: Vectors = "queries"
    """What stands for an image."""

    def __post_init__(self) -> None:
        check_smoothing(self, self.label_smoothing)
        check_choices(self)

    @property
    def name(self) -> str:
        """Contrasts of other vectors have names of their own."""
        return "itc" if self.vectors == "queries" else f"itc_{self.vectors}"

    def check(self, model: Model) -> None:
        """Raises ValueError when the connector cannot compare images with texts."""
        check_aligns(model, self)
        if self.vectors != "queries" and model.connector.captions != "llama":
            raise ValueError(
                f"ITC(vectors={self.vectors!r}) needs pooled features, which {type(model.connector).__name__} lacks. "
                f"Use vectors='queries', or the connector qllama."
            )

    def passes(self) -> Passes:
        """A vector of the caption, and of the image those that stand for it."""
        queries, features = self.vectors in ("queries", "sum"), self.vectors in ("features", "sum")
        return Passes(contrast=True, queries=queries, features=features)

    def prepare(self, shared: Shared) -> None:
        """Announces the captions' pass."""
        shared.reading.expect("contrast")

    def counts(self, batch: Batch) -> dict[str, int]:
        """Pairs."""
        return {self.name: len(batch.ids)}

    def losses(self, shared: Shared) -> dict[str, Tensor]:
        """Both directions, summed over the batch's pairs; pairs without words count as the others' mean."""
        if shared.part is not None:
            return {self.name: self.partial(shared, shared.part)}
        compared = shared.compare(self.vectors, self.gradients)
        targets = self.targets(shared, compared)
        forth, back = (direction_losses(one, targets) for one in (compared.image_to_text, compared.text_to_image))
        return {self.name: mean_kept((forth + back) / 2, ~shared.captions.empty) * len(targets)}

    def partial(self, shared: Shared, part: Part) -> Float[Tensor, ""]:
        """The share of a loss that its whole batch has given already: its value, with its slopes."""
        images, texts = shared.reading.images(self.vectors), shared.reading.texts()
        slope = (images * part.image_gradients[self.name]).sum() + (texts * part.text_gradients[self.name]).sum()
        slope = slope + shared.reading.scale() * part.scale_gradients[self.name]
        return part.values[self.name] + slope - slope.detach()

    def targets(self, shared: Shared, compared: Comparison) -> Float[Tensor, "rows all"]:
        """What each row should give: 1 at its own pair (or shared by its image's captions), smoothed over all."""
        positive = (shared.same_image() if self.same_image else compared.own).to(compared.image_to_text.dtype)
        certain = positive / positive.sum(dim=1, keepdim=True)
        return (1 - self.label_smoothing) * certain + self.label_smoothing / certain.shape[1]


def direction_losses(logits: Float[Tensor, "rows all"], targets: Float[Tensor, "rows all"]) -> Float[Tensor, " rows"]:
    """Cross-entropy of each row with its soft target."""
    return -(torch.log_softmax(logits, dim=1) * targets).sum(dim=1)


def mean_kept(losses: Float[Tensor, " rows"], kept: Tensor) -> Float[Tensor, ""]:
    """The mean over the rows that are kept; 0, with gradient 0, where there is none."""
    return (losses * kept).sum() / kept.sum().clamp(min=1)
