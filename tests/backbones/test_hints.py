"""Hints: what the mentions of a text refer to, and where in the tokens they stand."""

from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backbones.hints import CONTEXT, PAIR, PHRASE, UNKNOWN, VERDICT, HintHeads, context_hints, question_hints
from backbones.speaker import deepen
from isthmus.data.sources.world.scene import CELLS, COLOURS, SHAPES, Item

BOX = (0.0, 0.0, 1.0, 1.0)


def item(size: str, colour: str, shape: str, place: str) -> Item:
    return Item(shape=shape, colour=colour, size=size, cell=CELLS.index(place), box=BOX, rgb=(0, 0, 0))


def scene(*items: Item) -> Any:
    return SimpleNamespace(items=items)


RED, BLUE, HEART, STAR = COLOURS.index("red"), COLOURS.index("blue"), SHAPES.index("heart"), SHAPES.index("star")
TWO = scene(item("small", "red", "heart", "top left"), item("large", "blue", "star", "right"))


def told(text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(text[: hint.end].split()[-1], hint.labels) for hint in context_hints(text)]


def test_a_name_is_known_at_its_end_and_its_place_where_both_have_been_said() -> None:
    heart = (RED, HEART, 0)
    assert told("small red heart, top left") == [("heart", (*heart, UNKNOWN)), ("left", (*heart, 0))]
    assert told("top left: small red heart") == [("heart", (*heart, 0))]
    assert told("At the top left is a small red heart.") == [("heart", (*heart, 0))]
    assert told("A small red heart is at the right.")[1] == ("right", (*heart, 5))
    assert told("A red heart is there.") == []


def test_a_phrase_refers_to_the_one_thing_that_fits() -> None:
    (hint,) = question_hints("What size is the red thing?", "small", TWO)
    assert hint.kind == PHRASE
    assert hint.labels == (RED, HEART, 0, 0)
    assert "What size is the red thing?"[: hint.end] == "What size is the red thing"
    assert question_hints("What size is the large thing at the left?", "large", TWO) == ()


def test_the_second_phrase_knows_the_relation_how_the_two_stand_and_the_answer() -> None:
    hints = question_hints("Is the heart above the blue star?", "yes", TWO)
    assert [hint.kind for hint in hints] == [PHRASE, PHRASE, PAIR, VERDICT]
    assert hints[1].labels == (BLUE, STAR, 1, 5)
    assert hints[2].labels == (2, 2, 2, 2)  # lower, further right and larger than the first; "above"
    assert hints[3].labels == (1,)
    assert len({hint.end for hint in hints[1:]}) == 1


def test_the_heads_read_the_token_they_are_told_to() -> None:
    torch.manual_seed(0)
    heads = HintHeads(8)
    states = tuple(torch.randn(2, 5, 8) for _ in range(7))
    labels = (RED, HEART, 0, UNKNOWN)
    before = heads(states, [(CONTEXT, 1, 3, labels)])
    assert list(before) == ["mention"]
    states[2][1, 3] += 1.0
    assert heads(states, [(CONTEXT, 1, 3, labels)])["mention"] != before["mention"]
    states[2][1, 2] += 1.0
    assert heads(states, [(CONTEXT, 1, 2, labels)])["mention"] != heads(states, [(CONTEXT, 0, 3, labels)])["mention"]


def test_a_deepened_speaker_says_the_same() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    model, ids = LlamaForCausalLM._from_config(config), torch.randint(3, 50, (1, 9))
    deep = deepen(model, 4)
    with torch.no_grad():
        assert len(deep.model.layers) == 4
        torch.testing.assert_close(deep(ids).logits, model(ids).logits)
