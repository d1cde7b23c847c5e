"""Packing: the rows of a batch one after another in as few rows as hold them, so that little is padding.

Every row keeps its positions from 0 on and sees itself alone: `transformers` parts sequences where position ids start
anew (`masking_utils.find_packed_sequence_indices`), in the models that hand their position ids to the mask. Checked
against: the same rows unpacked, losses and gradients (tests/llms/test_packed_rows.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.llms.base import IGNORED


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Rows in fewer rows. `owner` says which row of the batch a place is of; the first label of each is ignored."""

    embeddings: Float[Tensor, "packs places width"]
    positions: Int[Tensor, "packs places"]
    labels: Int[Tensor, "packs places"]
    owner: Int[Tensor, "packs places"]


def pack(
    embeddings: Float[Tensor, "rows length width"],
    mask: Bool[Tensor, "rows length"],
    labels: Int[Tensor, "rows length"],
    capacity: int,
) -> Packed:
    """The real positions of all rows, as many rows together as `capacity` places hold; a longer row stands alone."""
    lengths = mask.sum(dim=1).tolist()
    packs = first_fit(lengths, capacity)
    longest = max(sum(lengths[row] for row in one) for one in packs)
    where = [columns.nonzero()[:, 0] for columns in mask]
    source = torch.zeros(len(packs), longest, dtype=torch.long, device=mask.device)
    owner, positions = torch.zeros_like(source), torch.zeros_like(source)
    kept = torch.full_like(source, IGNORED)
    for number, rows in enumerate(packs):
        start = 0
        for row in rows:
            own = slice(start, start + lengths[row])
            source[number, own] = row * mask.shape[1] + where[row]
            positions[number, own] = torch.arange(lengths[row], device=mask.device)
            kept[number, own] = labels[row, where[row]]
            kept[number, start] = IGNORED
            owner[number, own] = row
            start += lengths[row]
        positions[number, start:] = torch.arange(longest - start, device=mask.device)
    return Packed(embeddings=embeddings.flatten(0, 1)[source], positions=positions, labels=kept, owner=owner)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The numbers of the rows in each pack: the longest first, each into the first pack that has room for it."""
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        number = next((number for number, left in enumerate(room) if left >= lengths[row]), len(packs))
        if number == len(packs):
            packs.append([])
            room.append(capacity)
        packs[number].append(row)
        room[number] -= lengths[row]
    return packs
