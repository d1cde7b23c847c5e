"""The whole shelf side by side: what every connector costs between one encoder and one language model."""

from dataclasses import dataclass, replace

from isthmus.connectors import CONNECTORS
from isthmus.measure.cost import Cost, cost
from isthmus.measure.inputs import ONE_IMAGE, Inputs
from isthmus.measure.known import offline
from isthmus.model import Model


@dataclass(frozen=True, kw_only=True)
class ShelfRow:
    """One connector with its default choices: its cost, or why it cannot stand between these two models."""

    name: str
    bill: Cost | None
    misfit: str = ""


def shelf(
    model: Model, *, image: tuple[int, int] | None = None, text_tokens: int = 64, inputs: Inputs = ONE_IMAGE
) -> tuple[ShelfRow, ...]:
    """Every connector of CONNECTORS in the place of the model's own, whose own choices count where it is listed."""
    known, rows = offline(model), []
    for name, made in CONNECTORS.items():
        connector = known.connector if type(known.connector) is made else made()
        try:
            bill = cost(replace(known, connector=connector), image=image, text_tokens=text_tokens, inputs=inputs)
            rows.append(ShelfRow(name=name, bill=bill))
        except ValueError as error:
            rows.append(ShelfRow(name=name, bill=None, misfit=str(error)))
    return tuple(rows)
