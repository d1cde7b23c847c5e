"""Exact questions about boxes, answered again by reading the question."""

import random
import re
from collections import Counter

from isthmus.data.sources.boxes import BOXES, COLOURS, SHAPES, Boxes, Thing, ask_boxes, say_boxes


def thing(x: int, y: int, shape: str, colour: str, side: int) -> Thing:
    return Thing(x=x, y=y, shape=shape, colour=colour, side=side)


TOWER: Boxes = (
    (thing(40, 80, "square", "yellow", 20), thing(40, 59, "square", "black", 20)),
    (thing(10, 10, "circle", "blue", 10),),
    (),
)


def random_boxes(rng: random.Random) -> Boxes:
    return tuple(
        tuple(
            thing(
                rng.randrange(80), rng.randrange(80), rng.choice(SHAPES), rng.choice(COLOURS), rng.choice((10, 20, 30))
            )
            for _ in range(rng.randint(0, 7))
        )
        for _ in range(3)
    )


def answered(question: str, boxes: Boxes) -> str:
    """The answer, from the words of the question alone."""
    place = next((number for number, name in enumerate(BOXES) if f"the {name} box" in question), None)
    things = [one for number, box in enumerate(boxes) if place in (None, number) for one in box]
    words = re.findall(r"[a-z]+", question)
    for colour in COLOURS:
        things = [one for one in things if colour not in words or one.colour == colour]
    for shape in SHAPES:
        things = [one for one in things if not {shape, shape + "s"} & set(words) or one.shape == shape]
    if question.startswith("How many"):
        return str(len(things))
    if question.startswith("Is there"):
        return "yes" if things else "no"
    assert len(things) == 1
    return things[0].colour


def test_every_answer_is_right_and_answers_are_balanced() -> None:
    rng = random.Random(0)
    answers: Counter[str] = Counter()
    for _ in range(150):
        boxes = random_boxes(rng)
        asked = ask_boxes(boxes, rng, 4)
        assert 2 <= len(asked) <= 4
        for question, answer, choices in asked:
            assert answer == answered(question, boxes), question
            assert answer in choices
            answers[answer] += 1
    assert 0.7 < answers["yes"] / answers["no"] < 1.4
    assert max(answers[colour] for colour in COLOURS) < 1.5 * min(answers[colour] for colour in COLOURS)
    counts = [answers[str(number)] for number in range(5)]
    assert max(counts) < 2 * min(counts)


def test_empty_boxes_can_be_asked_about() -> None:
    asked = ask_boxes(((), (), ()), random.Random(0), 3)
    assert {answer for _, answer, _ in asked} <= {"0", "no"}


def test_the_words_say_everything() -> None:
    assert say_boxes(TOWER) == (
        "left box: medium yellow square, medium black square; middle box: small blue circle; right box: nothing."
    )
