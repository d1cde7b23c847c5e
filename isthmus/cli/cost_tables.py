"""The tables that every kind of stage's cost is printed in, whose numbers are never cut."""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table

from isthmus.cli.tables import gib, short
from isthmus.measure import PartCost, TrainingMemory

Cell = str | int
"""A text as it stands, or a count: exact where there is room."""
WIDE = 4_000
"""Columns of a console that is no terminal, where a table takes what it needs and a sentence one line."""
ROUNDED = "rounded to fit; all digits in a wider terminal, a file or a pipe"


def cost_console() -> Console:
    """The terminal, or for a file or a pipe a console wide enough for every table unless COLUMNS says its width."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


class CountTable:
    """Names in the first column, counts in the others; drawn in the first of these forms that is narrow enough.

    All digits with each heading on one line; all digits with headings of several lines and no frame; counts in three
    or four digits; and where these are still too wide, several tables, each with the names and some of the columns.
    """

    def __init__(self, title: str, headings: Sequence[str]) -> None:
        self.title = title
        self.headings = tuple(headings)
        self.rows: list[tuple[Cell, ...]] = []
        self._ends: set[int] = set()

    def add_row(self, *cells: Cell) -> None:
        """One row, a cell for each heading."""
        assert len(cells) == len(self.headings), f"{len(self.headings)} cells are wanted, {len(cells)} came"
        self.rows.append(cells)

    def add_section(self) -> None:
        """A line below the last row."""
        self._ends.add(len(self.rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """The table, or several."""
        every, room = range(1, len(self.headings)), options.max_width
        for rounded, narrow in ((False, False), (False, True), (True, True)):
            table = self._drawn(every, rounded=rounded, narrow=narrow)
            if _width(console, table) <= room:
                yield table
                return
        starts = [1]
        for last in every:
            table = self._drawn(range(starts[-1], last + 1), rounded=True, narrow=True)
            if last > starts[-1] and _width(console, table) > room:
                starts.append(last)
        for first, after in pairwise((*starts, len(self.headings))):
            yield self._drawn(range(first, after), rounded=True, narrow=True)

    def _drawn(self, columns: Sequence[int], *, rounded: bool, narrow: bool) -> Table:
        """Names and some of the other columns."""
        chosen = (0, *columns)
        exact = [[_written(row[column], rounded=False) for column in chosen] for row in self.rows]
        rows = [[_written(row[column], rounded=rounded) for column in chosen] for row in self.rows]
        table = Table(
            title=self.title, show_edge=not narrow, pad_edge=not narrow, caption=None if rows == exact else ROUNDED
        )
        table.add_column(self.headings[0], overflow="fold")
        for number, column in enumerate(columns, start=1):
            heading = self.headings[column]
            if narrow:
                widest = max(map(len, (*heading.split(), *(row[number] for row in rows))))
                heading = textwrap.fill(heading, widest)
            table.add_column(heading, justify="right", no_wrap=True)
        for number, row in enumerate(rows):
            table.add_row(*row, end_section=number in self._ends)
        return table


def _written(cell: Cell, *, rounded: bool) -> str:
    if isinstance(cell, str):
        return cell
    return short(cell) if rounded else f"{cell:,}"


def _width(console: Console, table: Table) -> int:
    """Columns of the terminal that a table takes without a cut; its title and caption are wrapped."""
    return Measurement.get(console, console.options.update(max_width=WIDE), table).maximum


def parts_table(title: str, parts: Mapping[str, PartCost], last: str, total: PartCost) -> CountTable:
    """One row a part, and the `last` for all of them."""
    table = CountTable(title, ("part", "parameters", "that learn", "frozen", "FLOPs, forward"))
    for name, part in parts.items():
        table.add_row(name, *counts(part))
    table.add_section()
    table.add_row(last, *counts(total))
    return table


def counts(part: PartCost) -> tuple[int, ...]:
    """Parameters, those that learn, those that do not, and FLOPs."""
    return (part.parameters, part.learned, part.frozen, part.flops)


def facts_table(rows: Mapping[str, str]) -> Table:
    """Names and values without headings."""
    table = Table(show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
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
