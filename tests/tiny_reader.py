"""A tiny BERT-shaped reader with its own word pieces, made without training, for tests of connectors that read text."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
WORDS = (
    *SPECIALS,
    *"abcdefghijklmnopqrstuvwxyz0123456789.",
    *(f"##{one}" for one in "abcdefghijklmnopqrstuvwxyz0123456789"),
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def reader_tokenizer(*, begin: bool = True) -> PreTrainedTokenizerFast:
    """Letters and digits; without `[DEC]` unless `begin`."""
    words = [word for word in WORDS if begin or word != "[DEC]"]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", extra_special_tokens=["[DEC]"] if begin else [],
    )  # fmt: skip


def save_reader(root: Path, *, begin: bool = True) -> str:
    """A reader's folder, made once under `root`."""
    folder = root / ("reader" if begin else "plain-reader")
    if not folder.is_dir():
        torch.manual_seed(5)
        tokenizer = reader_tokenizer(begin=begin)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)
