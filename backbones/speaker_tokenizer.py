"""The tokenizer of speaker and translator: byte-pair pieces, with single bytes for every character it never saw.

Text is never changed: no normalisation, no added or lost spaces, so that decoding gives back any text exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
EXTRA = tuple(f"<extra_id_{place}>" for place in range(32))
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
WORDS = r"\n| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|[^\S\n]"
"""Pieces never cross these: a line break, a word with the space before it, one digit, signs, one other space."""


def train_pieces(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-pair pieces of `size` in all, with 256 bytes and the special tokens among them."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIALS) - len(BYTES) - len(EXTRA),
        limit_alphabet=160,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [piece for piece, _ in sorted(learned["vocab"].items(), key=lambda entry: entry[1])]
    vocabulary = {piece: place for place, piece in enumerate((*SPECIALS, *BYTES, *pieces))}
    merges: list[tuple[str, str]] = [(first, second) for first, second in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*SPECIALS, *EXTRA)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=1024,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=list(EXTRA),
        clean_up_tokenization_spaces=False,
    )
