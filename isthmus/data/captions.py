"""Captions in the connector's own tokens, for training without a language model (BLIP-2's first stage, InternVL 1.0).

Source: BLIP-2 (arXiv:2301.12597), salesforce/LAVIS `blip_processors.py` and `blip2_qformer.py`; InternVL
(arXiv:2312.14238), OpenGVLab/InternVL `internvl_g/internvl/train/dataset.py`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from isthmus.data.sample import Sample
from isthmus.data.tokens import IGNORED
from isthmus.features import Captions, Text

_WORDS = 50


@dataclass(frozen=True, kw_only=True)
class CaptionStyle:
    """How captions become the connector's tokens."""

    max_tokens: int = 32
    """Longest text, special tokens and prefix included; what is longer loses its end, and keeps its end mark."""
    clean: bool = False
    """Lower-case, punctuation to spaces, at most 50 words: LAVIS's rule."""
    contrast_prefix: str = ""
    """Stands before a text that is compared, for connectors of LLaMA's form."""
    write_prefix: str = ""
    """Stands before a text that is written, for connectors of LLaMA's form; its last token is learnt too."""

    def __post_init__(self) -> None:
        if self.max_tokens < 4:
            raise ValueError(f"CaptionStyle(max_tokens={self.max_tokens}) leaves no room for words: give 4 or more.")


def caption_of(sample: Sample) -> str:
    """The one caption of a sample with one image.

    Raises:
        ValueError: no image or several, no assistant turn or several, or an empty caption; names the sample.
    """
    told = [turn.text for turn in sample.turns if turn.role == "assistant"]
    if len(sample.images) != 1 or len(told) != 1:
        raise ValueError(
            f"Aligning images with texts needs one image and one caption a sample, but sample {sample.id!r} has "
            f"{len(sample.images)} images and {len(told)} assistant turns. Use a source of captions."
        )
    if not told[0].strip():
        raise ValueError(f"The caption of sample {sample.id!r} is empty: there is nothing to compare its image with.")
    return told[0].strip()


def cleaned(text: str) -> str:
    """LAVIS's caption: lower case, `. ! " ( ) * # : ; ~` become spaces, single spaces, at most 50 words."""
    spaced = re.sub(r"\s{2,}", " ", re.sub(r"([.!\"()*#:;~])", " ", text.lower())).strip()
    return " ".join(spaced.split(" ")[:_WORDS])


def styled_caption(sample: Sample, style: CaptionStyle) -> str:
    """The one caption of a sample as it is tokenised.

    Raises:
        ValueError: as `caption_of`, or cleaning leaves nothing of it; names the sample.
    """
    text = caption_of(sample)
    if style.clean:
        text = cleaned(text)
    if not text:
        raise ValueError(f"The caption of sample {sample.id!r} holds punctuation alone: cleaned, it is empty.")
    return text


def captions_of(
    samples: Sequence[Sample], *, tokenizer: Any, style: CaptionStyle, form: Literal["bert", "llama"]
) -> tuple[Captions, int]:
    """The captions of a batch, and how many of them lost their end.

    Raises:
        ValueError: a sample without exactly one image and one caption, or a caption that cleaning leaves empty.
    """
    texts = [styled_caption(sample, style) for sample in samples]
    image_ids = torch.tensor([_number(sample.images[0].key) for sample in samples])
    made = _bert if form == "bert" else _llama
    return made(texts, image_ids, tokenizer, style)


def _bert(texts: list[str], image_ids: torch.Tensor, tokenizer: Any, style: CaptionStyle) -> tuple[Captions, int]:
    begin = tokenizer.convert_tokens_to_ids("[DEC]")
    whole = _tokens(texts, tokenizer)
    room = style.max_tokens - 2
    rows = [[tokenizer.cls_token_id, *ids[:room], tokenizer.sep_token_id] for ids in whole]
    text = _padded(rows, tokenizer.pad_token_id)
    ids = text.ids.clone()
    ids[:, 0] = begin
    captions = Captions(
        contrast=text,
        match=text,
        write=Text(ids=ids, mask=text.mask),
        targets=ids.masked_fill(~text.mask, IGNORED),
        image_ids=image_ids,
        empty=torch.tensor([not ids for ids in whole]),
    )
    return captions, sum(len(ids) > room for ids in whole)


def _llama(texts: list[str], image_ids: torch.Tensor, tokenizer: Any, style: CaptionStyle) -> tuple[Captions, int]:
    ends = [int(tokenizer.eos_token_id)]
    starts = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    room = style.max_tokens - 1

    def rows(prefix: str) -> list[list[int]]:
        return [[*starts, *ids][:room] + ends for ids in _tokens([prefix + text for text in texts], tokenizer)]

    plain, contrast, write = (rows(prefix) for prefix in ("", style.contrast_prefix, style.write_prefix))
    written = _padded(write, padding)
    targets = written.ids.masked_fill(~written.mask, IGNORED)
    prefix = len(starts) + (len(_tokens([style.write_prefix], tokenizer)[0]) if style.write_prefix else 0)
    targets[:, : max(0, prefix - 1)] = IGNORED
    match = _padded(plain, padding)
    other, lacking = _others(image_ids)
    captions = Captions(
        contrast=_padded(contrast, padding),
        match=match,
        write=written,
        targets=targets,
        image_ids=image_ids,
        empty=torch.zeros(len(texts), dtype=torch.bool),
        negatives=Text(ids=match.ids[other], mask=match.mask[other]),
        negatives_empty=lacking,
    )
    return captions, sum(len(row) == style.max_tokens for row in write)


def _others(image_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the next row (round the batch) of another image, and which rows have none."""
    rows = len(image_ids)
    other = torch.arange(rows)
    for step in range(rows - 1, 0, -1):
        later = (torch.arange(rows) + step) % rows
        other = torch.where(image_ids[later] != image_ids, later, other)
    return other, image_ids[other] == image_ids


def _tokens(texts: list[str], tokenizer: Any) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def _padded(rows: list[list[int]], padding: int) -> Text:
    length = max(len(row) for row in rows)
    return Text(
        ids=torch.tensor([[*row, *([padding] * (length - len(row)))] for row in rows]),
        mask=torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows]),
    )


def _number(key: str) -> int:
    """The same 63 bits for the same image in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
