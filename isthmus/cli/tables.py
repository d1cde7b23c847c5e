"""Tables for the terminal: names, numbers for people, and where a recipe's values come from."""

from rich.table import Table

from isthmus.connectors import CONNECTORS
from isthmus.connectors.arrange import ARRANGEMENTS
from isthmus.data.prompts import PROMPTS
from isthmus.data.sources import SOURCES
from isthmus.encoders import ENCODERS, TILINGS
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.llms import LLMS
from isthmus.recipes import CHAINS, RECIPES, STUDIES
from isthmus.recipes.provenance import provenance
from isthmus.weights import BUNDLED

_SCALES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def short(number: int) -> str:
    """A count in three or four digits: 24159191040 is '24.2 G'."""
    for scale, letter in _SCALES:
        if abs(number) >= scale:
            return f"{number / scale:.4g} {letter}"
    return str(number)


def gib(number: int) -> str:
    """Bytes in GiB, or MiB when they are few."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.2f} MiB"


def names() -> Table:
    """Everything that can be named, with a line on each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    _section(table, "recipes", {name: recipe.summary for name, recipe in RECIPES.items()})
    _section(table, "chains of recipes", {name: chain.summary for name, chain in CHAINS.items()})
    _section(table, "studies", {name: study.summary for name, study in STUDIES.items()})
    for title, types in (
        ("connectors (--model.connector)", CONNECTORS),
        ("arrangements (--model.arrange)", ARRANGEMENTS),
        ("encoders (--model.encoder)", ENCODERS),
        ("tilings (--model.encoder.tiles)", TILINGS),
        ("language models (--model.llm)", LLMS),
        ("prompts (--model.prompt)", PROMPTS),
        ("data sources", {made.__name__: made for made in SOURCES}),
    ):
        _section(table, title, {name: _first_line(made) for name, made in types.items()})
    bundled = {f"bundled/{path.parent.name}": "" for path in sorted(BUNDLED.glob("*/config.json"))}
    _section(table, "bundled models", bundled)
    _section(table, "tasks", {name: task.title for name, task in BENCHMARKS.items()})
    _section(table, "tasks without a language model", {name: task.title for name, task in ALIGNMENT.items()})
    return table


def _section(table: Table, title: str, entries: dict[str, str]) -> None:
    table.add_row(f"[bold]{title}[/bold]", "")
    for name, line in entries.items():
        table.add_row(f"  {name}", line)


def _first_line(made: type) -> str:
    return (made.__doc__ or "").strip().splitlines()[0]


def provenance_table(config: object, docstring: str, original: object) -> Table:
    """Every value of a config; a source stands once, beside the first of the values that it covers.

    What could not be verified is yellow, and counted below.
    """
    table = Table(title=docstring.strip().splitlines()[0] if docstring.strip() else None)
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold", ratio=2)
    table.add_column("source", overflow="fold", ratio=3)
    last = ""
    doubtful = 0
    for one in provenance(config, docstring, original):
        if one.source != last:
            table.add_section()
        style = "yellow" if "unverified" in one.source else ""
        table.add_row(one.path, str(one.value), one.source if one.source != last else "", style=style)
        last = one.source
        doubtful += bool(style)
    table.caption = f"values not verified: {doubtful}" if doubtful else None
    return table
