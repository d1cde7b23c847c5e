"""What `isthmus cost` prints of a stage without a language model: image and caption, pass by pass."""

from collections.abc import Iterator

from rich.table import Table

from isthmus.cli.cost_tables import CountTable, facts_table, memory_rows, parts_table
from isthmus.cli.tables import short
from isthmus.measure import PartCost, alignment_cost, alignment_memory
from isthmus.train.stage import Stage


def alignment_tables(stage: Stage, *, image: tuple[int, int] | None, text_tokens: int) -> Iterator[Table | CountTable]:
    """The cost of one pair of image and caption: by part, by pass, and as a whole."""
    length = caption_length(stage, text_tokens)
    bill = alignment_cost(
        stage.model, stage.passes, train=stage.train, image=image, text_tokens=length, pairs=stage.batch_size
    )
    title = f"{stage.name}: {bill.image[0]} x {bill.image[1]} px, {length} caption tokens, {bill.pairs:,} pairs"
    every = PartCost(parameters=bill.parameters, learned=bill.learned, flops=bill.flops)
    yield parts_table(title, bill.parts, "all", every)
    read = CountTable("What the connector reads", ("pass", "FLOPs, forward", "share"))
    for name, flops in bill.passes.items():
        read.add_row(name, flops, f"{flops / bill.connector.flops:.1%}")
    yield read
    samples = stage.micro_batch_size or stage.batch_size
    memory = alignment_memory(stage.model, stage.passes, train=stage.train, samples=samples, text_tokens=length)
    cached = stage.cached_views > 0 and not bill.encoder.learned
    rows = {
        "vectors that the connector makes of an image": f"{bill.queries:,}",
        "FLOPs to train on one pair, at most": short(bill.training_flops(cached_features=cached))
        + (" (features kept)" if cached else ""),
        **memory_rows(memory, f"{samples:,} pairs"),
    }
    yield facts_table(rows)


def caption_length(stage: Stage, text_tokens: int) -> int:
    """Tokens of a caption: as asked, and no more than the stage's captions may have."""
    return min(text_tokens, stage.model.captions.max_tokens)
