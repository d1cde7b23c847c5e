"""A large contrastive batch in small memory: vectors of all micro-batches first, then each with its slopes.

Losses that compare all rows of a batch are no sum over micro-batches. So every micro-batch is read once without
gradient; the vectors are compared as one batch, which gives the loss and its slope at each vector; then every
micro-batch is read again, and carries its slopes back. The gradient is that of the batch in one piece.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983).
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from isthmus.data.collate import Batch
from isthmus.features import Captions, Text
from isthmus.model import VisionLanguageModel
from isthmus.train.objectives.base import Objective
from isthmus.train.objectives.gather import gather, gather_text
from isthmus.train.objectives.itc import ITC
from isthmus.train.objectives.itm import ITM, Negatives
from isthmus.train.objectives.shared import Part, Shared, compare


def compares(objectives: Sequence[Objective]) -> bool:
    """Whether any of these looks at all rows of a batch together."""
    return any(isinstance(one, ITC) or (isinstance(one, ITM) and one.negatives != "given") for one in objectives)


def parts_of(
    model: VisionLanguageModel,
    objectives: Sequence[Objective],
    batches: Sequence[Batch],
    seed: Callable[[int], None],
) -> list[Part]:
    """What each micro-batch takes from the whole batch. `seed` seeds torch for a micro-batch's number, for dropout.

    Raises:
        ValueError: the micro-batches hold pixels, whose features would have to be kept with their gradient.
    """
    if any(batch.features is None for batch in batches):
        raise ValueError(
            "A batch in several micro-batches is compared as a whole from kept features, but the encoder learns or "
            "nothing is cached. Leave out micro_batch_size, or freeze the encoder."
        )
    contrasts = [one for one in objectives if isinstance(one, ITC)]
    miners = [one for one in objectives if isinstance(one, ITM) and one.negatives != "given"]
    read = contrasts if contrasts else [ITC()]
    shared = Shared(model, merged(batches))
    leaves = _compare(shared, read, batches, seed)
    seed(0)
    drawn = miners[0].mine(shared) if miners else None
    slopes = {one.name: _slopes(one, shared, leaves[one.name]) for one in contrasts}
    return _split(shared, batches, slopes, drawn)


def read_vectors(shared: Shared, objectives: Sequence[Objective]) -> None:
    """Read what is compared before all else, as the pass without gradient did, so that dropout draws the same."""
    for one in objectives:
        if isinstance(one, ITC):
            shared.reading.expect("contrast", alone=True)
            shared.reading.images(one.vectors)
            shared.reading.texts()


def merged(batches: Sequence[Batch]) -> Batch:
    """The micro-batches as one, with their captions padded to one length."""
    captions = [batch.captions for batch in batches if batch.captions is not None]
    features = [batch.features for batch in batches if batch.features is not None]
    assert len(captions) == len(features) == len(batches), "alignment has refused other batches"
    whole = Captions(
        contrast=_stacked([one.contrast for one in captions]),
        match=_stacked([one.match for one in captions]),
        write=_stacked([one.write for one in captions]),
        targets=_rows([one.targets for one in captions], -100),
        image_ids=torch.cat([one.image_ids for one in captions]),
        empty=torch.cat([one.empty for one in captions]),
    )
    first = batches[0]
    return dataclasses.replace(
        first,
        ids=whole.match.ids,
        mask=whole.match.mask,
        labels=torch.full_like(whole.match.ids, -100),
        visual=torch.zeros_like(whole.match.mask),
        owner=tuple(range(len(whole.match.ids))),
        sample_ids=tuple(name for batch in batches for name in batch.sample_ids),
        features=dataclasses.replace(features[0], tokens=torch.cat([one.tokens for one in features]), valid=None),
        captions=whole,
    )


Leaves = tuple[Tensor, Tensor, Tensor]


def _compare(
    shared: Shared, read: Sequence[ITC], batches: Sequence[Batch], seed: Callable[[int], None]
) -> dict[str, Leaves]:
    """Read every micro-batch without gradient, and compare all their vectors, which are leaves of a new graph."""
    images: dict[str, list[Tensor]] = {one.name: [] for one in read}
    texts: list[Tensor] = []
    scale = torch.zeros(())
    with torch.no_grad():
        for number, batch in enumerate(batches):
            seed(number)
            some = Shared(shared.model, batch)
            some.reading.expect("contrast")
            for one in read:
                images[one.name].append(some.reading.images(one.vectors))
            texts.append(some.reading.texts())
            scale = some.reading.scale()
    leaves: dict[str, Leaves] = {}
    for one in read:
        made = [torch.cat(images[one.name]), torch.cat(texts), scale.clone()]
        first, second, third = (leaf.detach().requires_grad_() for leaf in made)
        leaves[one.name] = (first, second, third)
        shared.comparisons[one.vectors, one.gradients] = compare(first, second, third, one.gradients)
    return leaves


def _slopes(one: ITC, shared: Shared, leaves: Leaves) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = one.losses(shared)[one.name]
    return loss.detach(), torch.autograd.grad(loss, leaves)


def _split(
    shared: Shared,
    batches: Sequence[Batch],
    slopes: dict[str, tuple[Tensor, tuple[Tensor, ...]]],
    drawn: Negatives | None,
) -> list[Part]:
    text = gather_text(shared.captions.match)
    features = gather(shared.model.features(shared.batch).tokens)
    total = len(shared.batch.ids)
    parts: list[Part] = []
    first = 0
    for number, batch in enumerate(batches):
        rows = slice(first, first + len(batch.ids))
        first = rows.stop
        parts.append(
            Part(
                text=text,
                features=features,
                image_gradients={name: found[0][rows] for name, (_, found) in slopes.items()},
                text_gradients={name: found[1][rows] for name, (_, found) in slopes.items()},
                scale_gradients={name: found[2] * (number == 0) for name, (_, found) in slopes.items()},
                values={name: value * (len(batch.ids) / total) for name, (value, _) in slopes.items()},
                images=None if drawn is None else drawn.images[rows],
                texts=None if drawn is None else drawn.texts[rows],
                kept=None if drawn is None else drawn.kept[rows],
            )
        )
    return parts


def _stacked(texts: Sequence[Text]) -> Text:
    return Text(ids=_rows([text.ids for text in texts], 0), mask=_rows([text.mask for text in texts], 0))


def _rows(parts: Sequence[Tensor], filler: int) -> Tensor:
    longest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, longest - part.shape[1]), value=filler) for part in parts])
