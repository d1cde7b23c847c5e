"""What every objective is: it checks the model's config, counts what it averages over, and gives named losses."""

from dataclasses import dataclass

from torch import Tensor

from isthmus.connectors.reading import Passes
from isthmus.data.collate import Batch
from isthmus.model import Model
from isthmus.train.objectives.shared import Shared


class NotFiniteError(ValueError):
    """Something in training is not a finite number; `what` names it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Training broke down: {what} is not a finite number. What was saved before is intact. "
            f"Lower the learning rate, warm up longer, or clip the gradients; `isthmus doctor RUN` says more."
        )
        self.what = what


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One thing to learn. A loss is a sum over items; the loop divides it by the items of the whole global batch.

    That keeps the gradient the same however a batch is cut into micro-batches and processes. `weight` multiplies every
    loss of this objective.
    """

    weight: float = 1.0

    @property
    def name(self) -> str:
        """What its loss is called in the log; no two objectives of a stage share it."""
        raise AssertionError(f"{type(self).__name__} does not define name")

    def check(self, model: Model) -> None:
        """Raises ValueError when this model cannot give the losses, naming what can. Called when a stage is built."""
        raise AssertionError(f"{type(self).__name__} does not define check")

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many items each named loss sums over, known before the forward pass."""
        raise AssertionError(f"{type(self).__name__} does not define counts")

    def passes(self) -> Passes:
        """What it asks of a connector that learns alone; nothing where a language model learns."""
        return Passes()

    def prepare(self, shared: Shared) -> None:
        """Say what will be asked of the shared passes; every objective of a stage does so before any gives losses."""

    def losses(self, shared: Shared) -> dict[str, Tensor]:
        """Named losses, each a scalar sum over this batch's items, with the names of `counts`."""
        raise AssertionError(f"{type(self).__name__} does not define losses")
