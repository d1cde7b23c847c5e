"""What a pair of image and caption costs where the connector learns alone: BLIP-2's first stage, InternVL 1.0's.

There is no prompt and no key-value cache: the connector reads image and caption in the passes that the objectives ask
for. Conventions as in `cost.py` and `memory.py`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.experimental import _config as shapes_alone

from isthmus.connectors import Connector
from isthmus.connectors.reading import Passes, Reading
from isthmus.features import Captions, Features, FeatureShape, Text
from isthmus.measure.cost import PartCost, part_cost
from isthmus.measure.known import offline
from isthmus.measure.memory import TrainingMemory, held, kept_bytes, precision_of, tower_activations
from isthmus.measure.parameters import check_paths, named_parts
from isthmus.model import Model


@dataclass(frozen=True, kw_only=True)
class AlignmentCost:
    """The cost of one image and its caption, among `pairs` that are compared. FLOPs are forward."""

    image: tuple[int, int]
    """Width and height in pixels."""
    queries: int
    """Vectors that the connector makes of an image."""
    text_tokens: int
    """Of the caption, special tokens included."""
    pairs: int
    encoder: PartCost
    connector: PartCost
    passes: dict[str, int]
    """FLOPs of the connector by pass; they are `connector.flops` together."""

    @property
    def parts(self) -> dict[str, PartCost]:
        """The parts by name."""
        return {"encoder": self.encoder, "connector": self.connector}

    @property
    def parameters(self) -> int:
        """Of encoder and connector."""
        return self.encoder.parameters + self.connector.parameters

    @property
    def learned(self) -> int:
        """Parameters that learn."""
        return self.encoder.learned + self.connector.learned

    @property
    def flops(self) -> int:
        """FLOPs of the forward pass."""
        return self.encoder.flops + self.connector.flops

    def training_flops(self, *, cached_features: bool = False) -> int:
        """FLOPs of one training step on one pair: three forward passes of what learns, one of a frozen encoder.

        At most: a Q-Former over fixed features needs no gradient of its cross-attention's sources.
        """
        passes = 3 if self.encoder.learned and not self.encoder.adapters else 2 if self.encoder.learned else 1
        kept = cached_features and not self.encoder.learned
        return (0 if kept else passes) * self.encoder.flops + 3 * self.connector.flops


def alignment_cost(
    model: Model,
    passes: Passes,
    *,
    train: tuple[str, ...] = ("connector",),
    image: tuple[int, int] | None = None,
    text_tokens: int = 64,
    pairs: int = 1,
) -> AlignmentCost:
    """The cost of `model`, which has no language model, reading no weights. Arguments as those of `cost`.

    `passes` is what the objectives ask for; `pairs` the pairs of a batch, over all processes.

    Raises:
        ValueError: the connector reads no text, a caption is too short, a path in `train` fits no parameter, or the
            image has several views.
    """
    known = offline(model)
    assert known.llm is None, "with a language model, `cost` counts"
    if not known.connector.aligns:
        raise ValueError(f"{type(known.connector).__name__} has no heads to compare images with captions.")
    if text_tokens < 2 or pairs < 1:
        raise ValueError(f"A caption has 2 tokens or more and a batch 1 pair, but {text_tokens} and {pairs} came.")
    source, size = known.source(), image or (known.encoder.view_side(),) * 2
    views = len(known.encoder.plan(size).views)
    if views != 1:
        raise ValueError(
            f"Aligning needs one view an image, but the encoder cuts {views}. Use an encoder without tiles."
        )
    named = named_parts(known)
    check_paths(named, train)
    read = known.connector.alignment_flops(source, passes, text_tokens=text_tokens, pairs=pairs)
    return AlignmentCost(
        image=size,
        queries=known.connector.num_tokens(source.grid),
        text_tokens=text_tokens,
        pairs=pairs,
        encoder=part_cost(named["encoder"].count(train), known.encoder.flops()),
        connector=part_cost(named["connector"].count(train), sum(read.values())),
        passes=read,
    )


def alignment_memory(
    model: Model,
    passes: Passes,
    *,
    train: tuple[str, ...] = ("connector",),
    samples: int = 1,
    text_tokens: int = 64,
) -> TrainingMemory:
    """Memory of a forward and backward pass over `samples` images with a caption each.

    What the comparison of all with all keeps, a few numbers a pair, is left out. Raises ValueError as `alignment_cost`.
    """
    known = offline(model)
    bill = alignment_cost(model, passes, train=train, text_tokens=text_tokens)
    with torch.device("meta"):
        connector = known.connector.build_alone(known.source())
    for name, parameter in connector.named_parameters():
        parameter.requires_grad_(any(f"connector.{name}.".startswith(f"{path}.") for path in train))
    features = _features(known.source(), learn=bill.encoder.learned > 0)
    activations = kept_bytes(connector, lambda: _read(connector, passes, features, text_tokens))
    activations += tower_activations(known.encoder, 1) if bill.encoder.learned else 0
    parts = [(part, precision_of(getattr(known, name))) for name, part in bill.parts.items()]
    return held(parts, activations=samples * activations)


def _read(connector: Connector, passes: Passes, features: Features, text_tokens: int) -> Tensor:
    """Everything that the objectives ask of one image and its caption, on the meta device."""
    ids = torch.empty(1, text_tokens, dtype=torch.long, device="meta")
    told = Text(ids=ids, mask=torch.empty_like(ids, dtype=torch.bool))
    row = torch.empty(1, dtype=torch.long, device="meta")
    captions = Captions(contrast=told, match=told, write=told, targets=ids, image_ids=row, empty=row.bool())
    pairs = Text(ids=ids.expand(max(1, passes.match), -1), mask=told.mask.expand(max(1, passes.match), -1))
    with shapes_alone.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
        reading: Reading = connector.reading(features, captions)
        if passes.contrast:
            reading.expect("contrast")
        if passes.match and not passes.mined:
            reading.expect("match", pairs)
        if passes.write:
            reading.expect("write")
        found = [reading.texts()] if passes.contrast else []
        found += [reading.images("queries")] if passes.queries else []
        found += [reading.images("features")] if passes.features else []
        found += [reading.match(pairs, [0] * passes.match, None)] if passes.match else []
        found += [torch.log_softmax(reading.write()[0], dim=-1)] if passes.write else []
    return torch.stack([one.sum() for one in found]).sum()


def _features(source: FeatureShape, *, learn: bool) -> Features:
    tokens = torch.empty(1, source.prefix + source.grid.size, source.width, device="meta", requires_grad=learn)
    return Features(tokens=tokens, grid=source.grid, prefix=source.prefix)
