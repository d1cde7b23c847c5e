"""Prompt segments to token ids, labels and image places of one sample."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from isthmus.data.prompts import PromptStyle, Segment
from isthmus.data.sample import Sample

IGNORED = -100
"""The label of a position without a target."""

Placement = Literal["in-place", "before-bos"]
Kind = Literal["causal", "encoder-decoder"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One tokenised sample. `visual` is true at image places; `labels` equal `ids` where supervised, else -100.

    For an encoder-decoder `ids` go to the encoder and `target` is what the decoder learns.
    `num_images` and `num_exchanges` are those that were kept; `cut` says that text was left out.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    visual: tuple[bool, ...]
    num_images: int
    target: tuple[int, ...] = ()
    num_exchanges: int = 1
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How samples become rows of tokens: in which style, by which tokenizer, for which kind of model.

    `max_tokens` bounds a row (None: nothing does). For generation the last answer is left to the model.
    """

    prompt: PromptStyle
    tokenizer: Any
    placement: Placement = "in-place"
    max_tokens: int | None = None
    kind: Kind = "causal"
    for_generation: bool = False


def encode(sample: Sample, counts: Sequence[int], writing: Writing) -> Encoded:
    """One sample as `writing` says; its image `i` takes `counts[i]` positions.

    Raises:
        ValueError: as `tokenise`; or (in training) nothing is supervised, or an encoder-decoder gets several answers.
    """
    prompt, tokenizer, placement, max_tokens = writing.prompt, writing.tokenizer, writing.placement, writing.max_tokens
    segments = prompt.render(sample, tokenizer, for_generation=writing.for_generation)
    if writing.kind == "encoder-decoder":
        one = tokenise_pair(segments, tokenizer, counts, placement=placement, max_tokens=max_tokens, name=sample.id)
        supervised = len(one.target)
    else:
        one = tokenise(
            segments,
            tokenizer,
            counts,
            begins=prompt.begins,
            placement=placement,
            max_tokens=max_tokens,
            name=sample.id,
        )
        supervised = sum(label != IGNORED for label in one.labels[1:])
    if not writing.for_generation and not supervised:
        raise ValueError(
            f"Nothing is supervised in sample {sample.id!r} as {type(prompt).__name__} writes it: no loss. "
            f"It needs an assistant turn with text; its roles are {[turn.role for turn in sample.turns]}."
        )
    if writing.for_generation and one.cut:
        raise ValueError(
            f"The prompt of sample {sample.id!r} is longer than max_tokens={max_tokens}. Raise max_tokens."
        )
    return one


def tokenise(
    segments: Sequence[Segment],
    tokenizer: Any,
    counts: Sequence[int],
    *,
    begins: bool = True,
    placement: Placement = "in-place",
    max_tokens: int | None = None,
    name: str = "",
) -> Encoded:
    """Token ids, labels and image places of one sample; image `i` takes `counts[i]` positions.

    A sample that is longer than `max_tokens` loses its last exchanges whole; a single one loses the end of its
    supervised text. An image is never cut.

    Raises:
        ValueError: not one count for each image place, or even the first exchange does not fit.
    """
    places = sum(segment.image for segment in segments)
    if places != len(counts):
        raise ValueError(
            f"The prompt has {places} image places but {len(counts)} images came with it (sample {name!r})."
        )
    pieces = _pieces(segments, tokenizer, counts)
    kept = 1 + max((segment.exchange for segment in segments), default=0)
    opening = _opening(tokenizer) if begins else []
    while True:
        taken = [piece for piece in pieces if piece.exchange < kept]
        encoded = _join(taken, opening, placement, placeholder(tokenizer))
        if max_tokens is None or len(encoded.ids) <= max_tokens:
            break
        if kept == 1:
            encoded = _cut(encoded, max_tokens, name)
            break
        kept -= 1
    shortened = len(taken) < len(pieces) or encoded.cut
    return replace(encoded, num_exchanges=kept, cut=shortened)


def tokenise_pair(
    segments: Sequence[Segment],
    tokenizer: Any,
    counts: Sequence[int],
    *,
    placement: Placement = "in-place",
    max_tokens: int | None = None,
    name: str = "",
) -> Encoded:
    """For an encoder-decoder: what is not supervised goes to the encoder, the one supervised text is the target.

    Raises:
        ValueError: more than one supervised exchange, or the encoder's input does not fit.
    """
    answers = [segment for segment in segments if segment.supervised]
    last = segments[-1].exchange if segments else 0
    asking = [
        replace(segment, supervised=False) for segment in segments if not segment.supervised or segment.exchange < last
    ]
    answers = [replace(segment, end=False) for segment in answers if segment.exchange == last]
    ending = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    room = None if max_tokens is None else max_tokens - len(ending)
    asking = [replace(segment, end=False, exchange=0) for segment in asking]
    source = tokenise(asking, tokenizer, counts, begins=False, placement=placement, max_tokens=room, name=name)
    target = [one for piece in _pieces(answers, tokenizer, []) for one in piece.ids] if answers else []
    target = [*target[:room], *ending] if answers else []
    return replace(
        source,
        ids=(*source.ids, *ending),
        labels=(IGNORED,) * (len(source.ids) + len(ending)),
        visual=(*source.visual, *(False for _ in ending)),
        target=tuple(target),
    )


@dataclass(frozen=True)
class _Piece:
    ids: list[int]
    supervised: bool
    image: bool
    exchange: int


def _pieces(segments: Sequence[Segment], tokenizer: Any, counts: Sequence[int]) -> list[_Piece]:
    filler = placeholder(tokenizer)
    texts = _tokens(segments, tokenizer)
    sizes = iter(counts)
    pieces: list[_Piece] = []
    for segment, ids in zip(segments, texts, strict=True):
        if segment.image:
            ids = [filler] * next(sizes)
        if segment.end and tokenizer.eos_token_id is not None:
            ids = [*ids, int(tokenizer.eos_token_id)]
        pieces.append(_Piece(ids, segment.supervised, segment.image, segment.exchange))
    return pieces


_MEMORY: "weakref.WeakKeyDictionary[Any, dict[tuple[str, bool], list[int]]]" = weakref.WeakKeyDictionary()
_MEMORY_SIZE = 50_000


def _tokens(segments: Sequence[Segment], tokenizer: Any) -> list[list[int]]:
    """Ids of every segment's text; what was tokenised lately is remembered, for epochs repeat their texts."""
    known = _MEMORY.setdefault(tokenizer, {})
    wanted = [(segment.text, segment.special) for segment in segments]
    for special in (False, True):
        new = list({text: None for text, kind in wanted if kind is special and text and (text, special) not in known})
        if new:
            if len(known) > _MEMORY_SIZE:
                known.clear()
            shorn = [_without_doubled_space(text, tokenizer) for text in new]
            found = tokenizer(shorn, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
            known.update({(text, special): ids for text, ids in zip(new, found, strict=True)})
    return [list(known[key]) if key[0] else [] for key in wanted]


def _without_doubled_space(text: str, tokenizer: Any) -> str:
    """Tokenizers of Llama 1 and 2 write a space before every text: take away the one that stands there already."""
    if not text.startswith(" ") or text.startswith("  "):
        return text
    return text[1:] if _writes_space(tokenizer) else text


_WRITES_SPACE: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


def _writes_space(tokenizer: Any) -> bool:
    known = _WRITES_SPACE.get(tokenizer)
    if known is None:
        bare, spaced = (tokenizer.tokenize(text, add_special_tokens=False) for text in ("a", " a"))
        known = bool(bare) and bare[0].startswith("\u2581") and bare != spaced
        _WRITES_SPACE[tokenizer] = known
    return known


def _opening(tokenizer: Any) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def placeholder(tokenizer: Any) -> int:
    """The id at image places: never the end of text, so that penalties on repetition do not touch it."""
    for known in (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id):
        if known is not None and known != tokenizer.eos_token_id:
            return int(known)
    return 0


def _join(pieces: Sequence[_Piece], opening: list[int], placement: Placement, filler: int) -> Encoded:
    ids: list[int] = []
    labels: list[int] = []
    visual: list[bool] = []
    start = _Piece(opening, False, False, 0)
    images = [piece for piece in pieces if piece.image]
    if placement == "before-bos":
        ordered = [*images, start, *(piece for piece in pieces if not piece.image)]
    else:
        ordered = [start, *pieces]
    for piece in ordered:
        ids += piece.ids
        labels += piece.ids if piece.supervised else [IGNORED] * len(piece.ids)
        visual += [piece.image] * len(piece.ids)
    assert not any(one and here != filler for one, here in zip(visual, ids, strict=True))
    return Encoded(ids=tuple(ids), labels=tuple(labels), visual=tuple(visual), num_images=len(images))


def _cut(encoded: Encoded, max_tokens: int, name: str) -> Encoded:
    supervised = any(label != IGNORED for label in encoded.labels[:max_tokens])
    if not supervised or any(encoded.visual[max_tokens:]):
        raise ValueError(
            f"Sample {name!r} needs {len(encoded.ids)} tokens ({sum(encoded.visual)} of them visual) for its first "
            f"exchange, but max_tokens={max_tokens}. Raise the language model's max_tokens, or show less: fewer or "
            f"smaller pictures, fewer tiles (--max-tiles) or frames (--frames uniform:4), or fewer visual tokens each."
        )
    return replace(
        encoded,
        ids=encoded.ids[:max_tokens],
        labels=encoded.labels[:max_tokens],
        visual=encoded.visual[:max_tokens],
        cut=True,
    )
