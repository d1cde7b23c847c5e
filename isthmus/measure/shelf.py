"""The whole shelf side by side: what every connector costs between one encoder and one language model."""

from dataclasses import dataclass, replace

from isthmus.connectors import CONNECTORS
from isthmus.connectors.arrange import ArrangementConfig, Levels
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
    arrange: ArrangementConfig | None = None
    """What lays its tokens out, where the model's own arrangement would leave some of them."""


def shelf(
    model: Model, *, image: tuple[int, int] | None = None, text_tokens: int = 64, inputs: Inputs = ONE_IMAGE
) -> tuple[ShelfRow, ...]:
    """Every connector of CONNECTORS in the place of the model's own, whose own choices count where it is listed.

    Where one gives levels for later layers and the model's arrangement would place none, they go through `Levels`.
    """
    known, rows = offline(model), []
    for name, made in CONNECTORS.items():
        connector = known.connector if type(known.connector) is made else made()
        levels = connector.num_levels(known.source())
        needed = None
        if levels and not known.arrange.added_before():
            needed = Levels(layers=tuple(range(1, levels + 1)), arrange=known.arrange)
        stands = replace(known, connector=connector, arrange=needed or known.arrange)
        try:
            bill = cost(stands, image=image, text_tokens=text_tokens, inputs=inputs)
            rows.append(ShelfRow(name=name, bill=bill, arrange=needed))
        except ValueError as error:
            rows.append(ShelfRow(name=name, bill=None, misfit=str(error)))
    return tuple(rows)
