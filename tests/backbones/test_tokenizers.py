"""The tokenizers that the backbones are given: nothing is lost, and pieces do not depend on how a text is cut."""

import pytest

from backbones.speaker_tokenizer import train_pieces
from backbones.word_pieces import train_word_pieces

TEXTS = ["A small red circle is at the top left.", "Question: What colour is the star? Answer: red"] * 20


@pytest.mark.parametrize(
    "text",
    ["", " ", "a  b", "Tabs\tand\r\nlines\n\n", "▁a▁", "<0x41>", "naïve 漢字 🙂 \u200d", "</s> is a mark", "\x00"],
)
def test_decoding_gives_back_any_text(text: str) -> None:
    tokenizer = train_pieces(TEXTS, 400)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_pieces_do_not_cross_the_cuts_between_segments() -> None:
    tokenizer = train_pieces(TEXTS, 400)
    whole = tokenizer("A small red circle\nQuestion: What colour? Answer: red")["input_ids"]
    parts = ["A small red circle", "\n", "Question: What colour? Answer:", " red"]
    assert [one for part in parts for one in tokenizer(part)["input_ids"]] == whole


def test_special_tokens_have_the_places_that_the_models_configs_name() -> None:
    tokenizer = train_pieces(TEXTS, 400)
    assert [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [
        0,
        1,
        2,
        3,
    ]
    assert tokenizer.convert_ids_to_tokens([4, 259]) == ["<0x00>", "<0xFF>"]


def test_word_pieces_hold_the_decoders_start_mark() -> None:
    tokenizer = train_word_pieces(TEXTS, 100)
    assert tokenizer.convert_tokens_to_ids("[DEC]") == 5
    assert tokenizer("[DEC] Red star")["input_ids"][1] == 5
