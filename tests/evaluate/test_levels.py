"""What can be had without looking, by hand-counted cases."""

from typing import Any

import pytest

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.evaluate.blank import BlankImage
from isthmus.evaluate.levels import Levels, QuestionGuesser, levels, question_of


def asked(question: str, answer: str, **meta: Any) -> Sample:
    turns = (Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),)
    return Sample(id=question, turns=turns, images=(BlankImage(),), meta={"answers": (answer,), **meta})


TRAINING = [
    asked("Is it red?", "yes"),
    asked("Is it red?", "yes"),
    asked("Is it red?", "no"),
    asked("Is it blue?", "no"),
    asked("Is it blue?", "no"),
    asked("What colour is the star?", "red"),
    asked("What colour is the ring?", "no"),
]


def test_chance_majority_and_question_only() -> None:
    items = [
        asked("Is it red?", "yes", choices=("yes", "no")),
        asked("Is it blue?", "no", choices=("yes", "no")),
        asked("Is it blue?", "yes", chance=0.25),
        asked("What colour is the heart?", "red"),
    ]
    assert levels(items, TRAINING) == Levels(
        chance=(0.5 + 0.5 + 0.25 + 0.0) / 4,
        majority=1 / 4,  # "no" is the commonest answer in training
        question_only=2 / 4,  # right on the first two; "What colour is the ..." ties, and "no" comes first
    )


def test_an_unknown_question_is_guessed_from_its_beginning() -> None:
    guess = QuestionGuesser([*TRAINING, asked("What colour is the cross?", "red")])
    assert guess("What colour is the moon?") == "red"
    assert guess("Is it red?") == "yes"
    assert guess("How many?") == "no"


def test_a_choice_among_pictures_has_chance_alone() -> None:
    item = asked("Which?", "a dog", chance=0.125, metric="retrieval")
    assert levels([item], TRAINING) == Levels(chance=0.125, majority=0.125, question_only=0.125)


def test_the_question_is_the_users_words() -> None:
    assert question_of(asked("Is  it\nred?", "yes")) == "Is it red?"


def test_items_without_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="meta\\['answers'\\]"):
        levels([asked("Is it?", "yes")], [Sample(id="bare", turns=())])
    with pytest.raises(ValueError, match="no items"):
        levels([], TRAINING)
