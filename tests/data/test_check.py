"""What `isthmus check` prints of a batch."""

import torch
from tiny_models import byte_tokenizer

from isthmus.data.check import check, check_captions
from isthmus.data.collate import Batch, collate
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sample import Sample, Turn
from isthmus.data.tokens import Writing
from isthmus.features import Captions, Grid, Plan, Text

PLAN = Plan(size=(8, 8), tiles=Grid(1, 1, 1), views=range(1))


class Picture:
    """Stands for an image."""

    key = "picture"

    def load(self) -> None:
        raise AssertionError("checking never loads images")


def batch(kind: str) -> Batch:
    turns = (Turn(role="user", text="<image>\nhm?"), Turn(role="assistant", text="yes"))
    samples = [Sample(id="one", turns=turns, images=(Picture(),)), Sample(id="two", turns=(turns[1],))]  # type: ignore[arg-type]
    return collate(
        samples,
        writing=Writing(prompt=QuestionAnswer(), tokenizer=byte_tokenizer(), kind=kind),  # type: ignore[arg-type]
        count_tokens=lambda plan: 4,
        plans=[PLAN],
    )


def test_supervised_tokens_are_marked() -> None:
    lines = [str(line) for line in check(batch("causal"), byte_tokenizer())]
    assert lines == [
        "one: 32 tokens, 4 visual, 5 supervised\n<s><image x 4>\nQuestion: hm? Answer:[[ yes</s>]]",
        "two: 5 tokens, 0 visual, 4 supervised\n<s>[[yes</s>]]",
    ]


def test_the_target_of_a_decoder_is_shown() -> None:
    line = str(check(batch("encoder-decoder"), byte_tokenizer())[0])
    assert line == ("one: 27 tokens, 4 visual, 5 supervised\n<image x 4>\nQuestion: hm? Answer:</s>\n-> [[ yes</s>]]")


def captions(*, given: bool) -> Captions:
    """One caption, "cat", of which "at" and its end are supervised."""
    tokenizer = byte_tokenizer()
    ids = torch.tensor([[1, *tokenizer("cat")["input_ids"], 2, 0]])
    mask = torch.tensor([[True] * 5 + [False]])
    targets = torch.tensor([[-100, -100, *ids[0, 2:5].tolist(), -100]])
    told = Text(ids=ids, mask=mask)
    other = Text(ids=torch.tensor([tokenizer("dog")["input_ids"]]), mask=torch.ones(1, 3, dtype=torch.bool))
    none = torch.tensor([False])
    return Captions(
        contrast=told,
        match=told,
        write=told,
        targets=targets,
        image_ids=torch.tensor([7]),
        empty=none,
        negatives=other if given else None,
        negatives_empty=none if given else None,
    )


def test_captions_say_what_each_objective_supervises() -> None:
    asked = {"contrast": True, "match": True, "write": True}
    assert str(check_captions(captions(given=False), ["one"], byte_tokenizer(), **asked)[0]) == (
        "one: an image and a caption of 5 tokens\n"
        "  compared: <image> with <s>cat</s> -> [[its own, among all captions of the batch]]\n"
        "  judged: <image> <s>cat</s> -> [[matches]]\n"
        "  judged: <image> another caption -> [[does not match]]\n"
        "  written: <image> <s>c[[at</s>]]"
    )


def test_given_negatives_are_shown_and_what_is_not_asked_for_is_not() -> None:
    asked = {"contrast": False, "match": True, "write": False}
    line = str(check_captions(captions(given=True), ["one"], byte_tokenizer(), **asked)[0])
    assert "compared" not in line
    assert "written" not in line
    assert line.endswith("\n  judged: <image> dog -> [[does not match]]")
