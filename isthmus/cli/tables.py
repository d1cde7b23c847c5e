"""Tables for the terminal: costs, names, and where a recipe's values come from."""

from collections.abc import Iterator

from rich.table import Table

from isthmus.connectors import CONNECTORS
from isthmus.connectors.arrange import ARRANGEMENTS
from isthmus.data.prompts import PROMPTS
from isthmus.data.sources import SOURCES
from isthmus.encoders import ENCODERS
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.llms import LLMS
from isthmus.measure import Cost, TrainingMemory, cost, training_memory
from isthmus.recipes import RECIPES, STUDIES
from isthmus.recipes.provenance import provenance
from isthmus.train.stage import Stage
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


def cost_tables(stage: Stage, *, image: tuple[int, int] | None, text_tokens: int) -> Iterator[Table]:
    """The cost of a stage: by part, and as a whole."""
    bill = cost(stage.model, train=stage.train, image=image, text_tokens=text_tokens)
    samples = stage.micro_batch_size or stage.batch_size
    memory = training_memory(stage.model, train=stage.train, samples=samples, text_tokens=text_tokens, image=image)
    parts = Table(title=f"{stage.name}: an image of {bill.image[0]} x {bill.image[1]} px, {text_tokens} text tokens")
    for heading in ("part", "parameters", "that learn", "FLOPs, forward"):
        parts.add_column(heading, justify="left" if heading == "part" else "right", no_wrap=True)
    for name, part in bill.parts.items():
        parts.add_row(name, f"{part.parameters:,}", f"{part.learned:,}", f"{part.flops:,}")
    parts.add_section()
    parts.add_row("all", f"{bill.parameters:,}", f"{bill.learned:,}", f"{bill.prefill_flops:,}")
    yield parts
    yield _whole(stage, bill, memory, samples)


def _whole(stage: Stage, bill: Cost, memory: TrainingMemory, samples: int) -> Table:
    cached = stage.cached_views > 0 and not bill.encoder.learned
    training = bill.training_flops(cached_features=cached)
    views = f" in {bill.views} views" if bill.views > 1 else ""
    rows = {
        "visual tokens": f"{bill.visual_tokens:,}{views}",
        "FLOPs to the first token": f"{short(bill.prefill_flops + bill.head_flops)} (dense attention)",
        "FLOPs the visual tokens add in the LLM": f"{short(bill.llm_visual_flops)} (dense attention)",
        "LLM prefill, causal attention": short(bill.llm_causal_flops),
        "FLOPs of one position's logits": short(bill.head_flops),
        "KV cache": gib(bill.kv_bytes),
        "FLOPs to train on one sample": short(training) + (" (features kept)" if cached else ""),
        f"memory to train, {samples} at a time": f"about {gib(memory.total)}",
        "  weights": gib(memory.weights),
        "  gradients and AdamW": gib(memory.gradients + memory.optimizer),
        "  activations, estimated": gib(memory.activations),
    }
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def names() -> Table:
    """Everything that can be named, with a line on each."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    _section(table, "recipes", {name: recipe.summary for name, recipe in RECIPES.items()})
    _section(table, "studies", {name: study.summary for name, study in STUDIES.items()})
    for title, types in (
        ("connectors (--model.connector)", CONNECTORS),
        ("arrangements (--model.arrange)", ARRANGEMENTS),
        ("encoders (--model.encoder)", ENCODERS),
        ("language models (--model.llm)", LLMS),
        ("prompts (--model.prompt)", PROMPTS),
        ("data sources", {made.__name__: made for made in SOURCES}),
    ):
        _section(table, title, {name: _first_line(made) for name, made in types.items()})
    bundled = {f"bundled/{path.parent.name}": "" for path in sorted(BUNDLED.glob("*/config.json"))}
    _section(table, "bundled models", bundled)
    _section(table, "tasks", {name: task.title for name, task in BENCHMARKS.items()})
    return table


def _section(table: Table, title: str, entries: dict[str, str]) -> None:
    table.add_row(f"[bold]{title}[/bold]", "")
    for name, line in entries.items():
        table.add_row(f"  {name}", line)


def _first_line(made: type) -> str:
    return (made.__doc__ or "").strip().splitlines()[0]


def provenance_table(config: object, docstring: str, original: object) -> Table:
    """Every value of a config; a source stands once, beside the first of the values that it covers."""
    table = Table(title=docstring.strip().splitlines()[0] if docstring.strip() else None)
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold", ratio=2)
    table.add_column("source", overflow="fold", ratio=3)
    last = ""
    for one in provenance(config, docstring, original):
        if one.source != last:
            table.add_section()
        table.add_row(one.path, str(one.value), one.source if one.source != last else "")
        last = one.source
    return table
