"""What a model says, as numbers: the logits of a batch, and what two models' logits and writings differ by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.data.collate import Batch
from isthmus.llms import EncoderDecoderLM
from isthmus.llms.causal import positions
from isthmus.model import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The largest absolute difference of two tensors, and the largest value, which says how small that is."""

    difference: float
    largest: float

    def within(self, tolerance: float) -> bool:
        """Whether the difference is at most `tolerance`, of 1 or of the largest value if that is more."""
        return self.difference <= tolerance * max(1.0, self.largest)


def differ(ours: Tensor, theirs: Tensor) -> Difference:
    """Raises ValueError when the shapes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(f"Ours is {tuple(ours.shape)}, theirs {tuple(theirs.shape)}: there is nothing to compare.")
    if not ours.numel():
        return Difference(difference=0.0, largest=0.0)
    gap = (ours.float() - theirs.float()).abs().max()
    return Difference(difference=float(gap), largest=float(theirs.float().abs().max()))


@torch.no_grad()
def logits(
    model: VisionLanguageModel, batch: Batch, decoder_ids: Tensor | None = None
) -> Float[Tensor, "rows length vocabulary"]:
    """The language model's logits at every position of a batch.

    An encoder-decoder gives those of its decoder, over `decoder_ids`.
    """
    placed = model._placed(batch)
    embedded = model.embed(batch, placed)
    model._open_door(batch, placed)
    given: dict[str, Tensor] = {"inputs_embeds": embedded, "attention_mask": batch.mask.long()}
    if isinstance(model.config.llm, EncoderDecoderLM):
        assert decoder_ids is not None, "an encoder-decoder's logits are those of its decoder"
        given["decoder_input_ids"] = decoder_ids
    elif not bool(batch.mask.all()):
        given["position_ids"] = positions(batch.mask)
    said: Tensor = model.llm.model(**given, use_cache=False).logits
    return said
