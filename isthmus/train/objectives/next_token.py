"""Next-token prediction on supervised tokens: what LLaVA trains with, and BLIP-2's second stage."""

from dataclasses import dataclass

from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.data.tokens import IGNORED
from isthmus.model import Model
from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.shared import Shared


@dataclass(frozen=True, kw_only=True)
class NextToken(Objective):
    """Cross-entropy of each supervised token, averaged over the supervised tokens of the global batch."""

    @property
    def name(self) -> str:
        """Of its loss."""
        return "loss"

    def check(self, model: Model) -> None:
        """Raises ValueError when the model has no language model."""
        if model.llm is None:
            raise ValueError(
                "NextToken needs a language model, but the stage's model has llm=None. "
                "Give the model an `llm`, or use objectives of the connector alone."
            )

    def counts(self, batch: Batch) -> dict[str, int]:
        """Supervised tokens of the batch."""
        if batch.decoder_labels is not None:
            return {self.name: int((batch.decoder_labels != IGNORED).sum())}
        return {self.name: int((batch.labels[:, 1:] != IGNORED).sum())}

    def losses(self, shared: Shared) -> dict[str, Tensor]:
        """The sum of the supervised tokens' cross-entropies."""
        return {self.name: shared.model(shared.batch).token_losses.sum()}
