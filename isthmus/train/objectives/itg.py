"""ITG: write the caption from what the queries say of the image.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; InternVL (arXiv:2312.14238), section 3.3.
Checked against: salesforce/LAVIS `blip2_qformer.py` (oracles `blip2_stage1*`) and OpenGVLab/InternVL
`modeling_internvl.py` (oracles `internvl_g_stage2*`).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from isthmus.connectors.reading import Passes
from isthmus.data.collate import Batch
from isthmus.data.tokens import IGNORED
from isthmus.model import Model
from isthmus.train.objectives.alignable import check_aligns, check_smoothing
from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.shared import Shared


@dataclass(frozen=True, kw_only=True)
class ITG(Objective):
    """Cross-entropy of each next token of the captions."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_smoothing(self, self.label_smoothing)

    @property
    def name(self) -> str:
        """Of its loss."""
        return "itg"

    def check(self, model: Model) -> None:
        """Raises ValueError when the connector cannot write."""
        check_aligns(model, self)

    def passes(self) -> Passes:
        """The pass that writes."""
        return Passes(write=True)

    def prepare(self, shared: Shared) -> None:
        """Announces the pass that writes."""
        shared.reading.expect("write")

    def counts(self, batch: Batch) -> dict[str, int]:
        """Supervised tokens."""
        return {self.name: 0 if batch.captions is None else int((batch.captions.targets[:, 1:] != IGNORED).sum())}

    def losses(self, shared: Shared) -> dict[str, Tensor]:
        """The sum over the supervised tokens."""
        logits, targets = shared.reading.write()
        smoothing = self.label_smoothing
        return {self.name: functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)}
