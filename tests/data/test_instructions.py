"""The question that a connector reads: which turn, which tokens, and what is lost of a long one."""

import pytest
from tiny_models import byte_tokenizer

from isthmus.data.instructions import instructions, question
from isthmus.data.sample import Sample, Turn
from isthmus.evaluate.blank import BlankImage

TOKENIZER = byte_tokenizer()


def chat(*texts: str) -> Sample:
    """User and assistant by turns, after a system turn."""
    roles = ("user", "assistant")
    turns = [Turn(role="system", text="be brief"), *(Turn(role=roles[i % 2], text=t) for i, t in enumerate(texts))]
    return Sample(id="chat", turns=tuple(turns))


MANY = chat("first one?", "a", "second\none?", "b", "third?", "c")


@pytest.mark.parametrize(
    ("turn", "kept", "words"),
    [
        ("last-question", 3, "third?"),
        ("last-question", 2, "second one?"),
        ("first-question", 3, "first one?"),
        ("first-question", 1, "first one?"),
    ],
)
def test_the_chosen_turn_among_those_that_are_kept(turn: str, kept: int, words: str) -> None:
    assert question(MANY, turn, kept) == words  # type: ignore[arg-type]


def test_a_question_without_an_answer_yet_is_the_last() -> None:
    assert question(chat("a?", "b", "c?"), "last-question", 2) == "c?"


def test_nothing_asked_is_an_empty_instruction_with_its_marks() -> None:
    silent = Sample(id="s", turns=(Turn(role="assistant", text="a cat"),))
    text = instructions([silent], [1], tokenizer=TOKENIZER, turn="last-question", max_tokens=8)
    assert text.ids.tolist() == [[1, 2]]


def test_rows_are_padded_on_the_right_and_lose_their_beginning() -> None:
    text = instructions(
        [chat("ab?"), chat("abcdefg?")], [1, 1], tokenizer=TOKENIZER, turn="last-question", max_tokens=6
    )
    assert text.mask.tolist() == [[True] * 5 + [False], [True] * 6]
    assert TOKENIZER.decode(text.ids[1][1:-1].tolist()) == "efg?"
    assert text.ids[:, 0].tolist() == [1, 1]
    assert text.ids[0].tolist()[-2:] == [2, 0]


def test_image_marks_and_special_tokens_of_a_sample_are_words() -> None:
    marked = Sample(id="s", turns=(Turn(role="user", text="what </s> is it?"),))
    text = instructions([marked], [1], tokenizer=TOKENIZER, turn="first-question", max_tokens=64)
    assert text.ids.tolist()[0].count(2) == 1
    assert question(chat("x"), "first-question", 1) == "x"


def test_no_room_for_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens=2 leaves no room"):
        instructions([MANY], [1], tokenizer=TOKENIZER, turn="last-question", max_tokens=2)


def test_marks_are_no_words() -> None:
    clip, still, noise = (BlankImage(side=side) for side in (1, 2, 3))
    asked = Turn(role="user", text="<video>\nIs <image> in it, and<audio>?")
    sample = Sample(id="s", turns=(asked,), images=(still,), videos=(clip,), sounds=(noise,))  # type: ignore[arg-type]
    assert question(sample, "last-question", 1) == "Is in it, and ?"
