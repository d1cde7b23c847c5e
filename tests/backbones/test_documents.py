"""Documents for the language models: exact answers, and weights on the tokens that are answers."""

import random
from pathlib import Path

from backbones.documents import Document, Turn, nlvr_document, world_document
from backbones.real import Boxes, BoxObject
from backbones.sequences import Encoder, pad
from backbones.speaker_tokenizer import train_pieces


def _boxes() -> Boxes:
    yellow = BoxObject(x=0, y=0, size=20, shape="square", colour="yellow")
    black = BoxObject(x=50, y=0, size=30, shape="circle", colour="black")
    return Boxes(images=(Path("a.png"),) * 6, boxes=((yellow, yellow), (black,), ()), sentence="A tower.", label=True)


def test_boxes_are_counted_right() -> None:
    counted = 0
    for seed in range(40):
        for turn in nlvr_document(_boxes(), random.Random(seed)).turns:
            if turn.question == "How many yellow squares are there?":
                assert turn.answer == "2"
                counted += 1
            if turn.question == "Is there a black circle?":
                assert turn.answer == "yes"
                counted += 1
    assert counted > 0


def test_the_human_sentence_is_asked_with_its_own_label() -> None:
    turns = nlvr_document(_boxes(), random.Random(1)).turns
    assert [turn.answer for turn in turns if turn.family == "truth"] == ["yes"]


def test_answers_weigh_one_and_stand_after_their_question() -> None:
    document = Document(
        source="world", context="a red star", turns=(Turn(question="What colour?", answer="red", family="attribute"),)
    )
    encoder = Encoder(train_pieces(["a red star", "Question: What colour? Answer: red"] * 5, 350))
    sequence = encoder.encode(document, random.Random(0))
    decode = encoder.tokenizer.decode
    (answer,) = sequence.answers
    assert decode(sequence.ids[: answer.first]) == "<s>a red star\nQuestion: What colour? Answer:"
    assert decode(sequence.ids[answer.first : answer.end]) == " red</s>"
    assert {sequence.weights[place] for place in range(answer.first, answer.end)} == {1.0}
    _, weights, context = pad([sequence], 0)
    assert float(weights[0, 0]) == 0.0
    assert decode(sequence.ids[1 : 1 + int(context.sum())]) == "a red star"


def test_world_documents_are_a_function_of_seed_and_generator() -> None:
    first, second = (world_document(3, "test", random.Random(5)) for _ in range(2))
    assert first == second
    assert 4 <= len(first.turns) <= 13
