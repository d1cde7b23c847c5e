"""The tables that every kind of stage's cost is printed in: by part, and as a whole."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from isthmus.cli.tables import gib
from isthmus.measure import PartCost, TrainingMemory


def headed(title: str, headings: Sequence[str]) -> Table:
    """An empty table whose first column holds names and whose others hold numbers."""
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number == 0)
    return table


def parts_table(title: str, parts: Mapping[str, PartCost], last: str, total: PartCost) -> Table:
    """One row a part, and the `last` for all of them."""
    table = headed(title, ("part", "parameters", "that learn", "frozen", "FLOPs, forward"))
    for name, part in parts.items():
        table.add_row(name, *_counts(part))
    table.add_section()
    table.add_row(last, *_counts(total))
    return table


def _counts(part: PartCost) -> list[str]:
    return [f"{count:,}" for count in (part.parameters, part.learned, part.frozen, part.flops)]


def facts_table(rows: Mapping[str, str]) -> Table:
    """Names and values without headings."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def memory_rows(memory: TrainingMemory, samples: str) -> dict[str, str]:
    """What training takes, as a whole and by what it is for; `samples` says how many go at a time."""
    return {
        f"memory to train, {samples} at a time": f"about {gib(memory.total)}",
        "  weights": gib(memory.weights),
        "  gradients and AdamW": gib(memory.gradients + memory.optimizer),
        "  activations, estimated": gib(memory.activations),
    }
