"""Work that is not done twice, nor for nothing: tokens without padding, and rows that look at one image together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.features import Text


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the real tokens of padded rows stand, so that what acts on each token alone skips the padding."""

    places: Int[Tensor, " tokens"]
    rows: int
    length: int

    @staticmethod
    def of(mask: Bool[Tensor, "rows length"]) -> "Packing | None":
        """The packing of rows whose real tokens are marked; `None` where there is no padding, or no content (meta)."""
        if mask.is_meta or bool(mask.all()):
            return None
        return Packing(places=mask.flatten().nonzero()[:, 0], rows=mask.shape[0], length=mask.shape[1])

    @staticmethod
    def whole(mask: Bool[Tensor, "rows length"]) -> "Packing":
        """Every place counted as a real token: rows one after another, as wide as they are."""
        return Packing(places=torch.arange(mask.numel(), device=mask.device), rows=mask.shape[0], length=mask.shape[1])

    def pack(self, padded: Float[Tensor, "rows length width"]) -> Float[Tensor, "tokens width"]:
        """The real tokens, one after another."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def first(self, packed: Float[Tensor, "tokens width"]) -> Float[Tensor, "rows 1 width"]:
        """The first token of each row, which is real in every text."""
        begins = torch.arange(self.rows, device=self.places.device) * self.length
        return packed.index_select(0, torch.searchsorted(self.places, begins))[:, None]

    def unpack(self, packed: Float[Tensor, "tokens width"]) -> Float[Tensor, "rows length width"]:
        """Rows with zeros for padding."""
        blank = packed.new_zeros(self.rows * self.length, packed.shape[1])
        filled = blank.index_copy(0, self.places, packed)
        unpacked: Tensor = rearrange(filled, "(rows length) width -> rows length width", rows=self.rows)
        return unpacked


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Rows that look at the same image, side by side, so that its keys and values serve them all without copies."""

    rows: Int[Tensor, "views most"]
    """The rows of each image; where there are fewer than `most`, row 0 fills up and is left out again."""
    places: Int[Tensor, " rows"]
    """Where each row stands among them."""

    @staticmethod
    def of(owner: Int[Tensor, " rows"], views: int) -> "Groups | None":
        """The groups of rows that read image `owner[i]`; `None` where they are too unequal to gain by it."""
        if owner.is_meta:  # shapes alone, for costs: as many rows an image
            return Groups(rows=owner.new_empty(views, -(-len(owner) // views)), places=torch.empty_like(owner))
        counts = torch.bincount(owner, minlength=views)
        most = int(counts.max())
        if views * most > 2 * len(owner):
            return None
        order = torch.argsort(owner, stable=True)
        within = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        places = torch.empty_like(owner)
        places[order] = owner[order] * most + within
        rows = torch.zeros(views * most, dtype=torch.long, device=owner.device)
        rows[places] = torch.arange(len(owner), device=owner.device)
        return Groups(rows=rows.view(views, most), places=places)

    def gather(self, rows: Float[Tensor, "rows queries width"]) -> Float[Tensor, "views all_queries width"]:
        """The queries of an image's rows one after another."""
        most = self.rows.shape[1]
        gathered: Tensor = rearrange(
            rows.index_select(0, self.rows.flatten()), "(views most) q c -> views (most q) c", most=most
        )
        return gathered

    def scatter(self, grouped: Float[Tensor, "views all_queries width"]) -> Float[Tensor, "rows queries width"]:
        """The rows as they were."""
        most = self.rows.shape[1]
        apart: Tensor = rearrange(grouped, "views (most q) c -> (views most) q c", most=most)
        return apart.index_select(0, self.places)


def owners_of(text: Text, owner: Sequence[int] | None, views: int, *, paired: bool) -> Tensor | None:
    """The feature row of each text row. Raises ValueError when they do not match."""
    rows = text.ids.shape[0]
    if not paired:
        return None
    if owner is None:
        if rows != views:
            raise ValueError(f"{rows} texts came with {views} feature rows: say with owner which row each text reads.")
        return None
    if len(owner) != rows or not all(0 <= one < views for one in owner):
        raise ValueError(
            f"owner must name one of {views} feature rows for each of {rows} texts, but it is {list(owner)}."
        )
    return torch.tensor(owner, dtype=torch.long, device=text.ids.device)
