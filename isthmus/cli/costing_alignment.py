"""What `isthmus cost` prints of a stage without a language model: image and caption, pass by pass."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from isthmus.cli.tables import gib, short
from isthmus.measure import alignment_cost, alignment_memory
from isthmus.train.stage import Stage


def headed(title: str, headings: Sequence[str]) -> Table:
    """An empty table whose first column holds names and whose others hold numbers."""
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=number == 0)
    return table


def alignment_tables(stage: Stage, *, image: tuple[int, int] | None, text_tokens: int) -> Iterator[Table]:
    """The cost of one pair of image and caption: by part, by pass, and as a whole."""
    length = caption_length(stage, text_tokens)
    bill = alignment_cost(
        stage.model, stage.passes, train=stage.train, image=image, text_tokens=length, pairs=stage.batch_size
    )
    parts = headed(
        f"{stage.name}: {bill.image[0]} x {bill.image[1]} px, {length} caption tokens, {bill.pairs:,} pairs",
        ("part", "parameters", "that learn", "frozen", "FLOPs, forward"),
    )
    for name, part in bill.parts.items():
        parts.add_row(name, f"{part.parameters:,}", f"{part.learned:,}", f"{part.frozen:,}", f"{part.flops:,}")
    parts.add_section()
    frozen = bill.parameters - bill.learned
    parts.add_row("all", f"{bill.parameters:,}", f"{bill.learned:,}", f"{frozen:,}", f"{bill.flops:,}")
    yield parts
    read = headed("What the connector reads", ("pass", "FLOPs, forward", "share"))
    for name, flops in bill.passes.items():
        read.add_row(name, f"{flops:,}", f"{flops / bill.connector.flops:.1%}")
    yield read
    samples = stage.micro_batch_size or stage.batch_size
    memory = alignment_memory(stage.model, stage.passes, train=stage.train, samples=samples, text_tokens=length)
    cached = stage.cached_views > 0 and not bill.encoder.learned
    whole = Table(show_header=False)
    whole.add_column()
    whole.add_column(justify="right")
    for name, value in {
        "vectors that the connector makes of an image": f"{bill.queries:,}",
        "FLOPs to train on one pair, at most": short(bill.training_flops(cached_features=cached))
        + (" (features kept)" if cached else ""),
        f"memory to train, {samples:,} pairs at a time": f"about {gib(memory.total)}",
        "  weights": gib(memory.weights),
        "  gradients and AdamW": gib(memory.gradients + memory.optimizer),
        "  activations, estimated": gib(memory.activations),
    }.items():
        whole.add_row(name, value)
    yield whole


def caption_length(stage: Stage, text_tokens: int) -> int:
    """Tokens of a caption: as asked, and no more than the stage's captions may have."""
    return min(text_tokens, stage.model.captions.max_tokens)
