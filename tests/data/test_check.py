"""What `isthmus check` prints of a batch."""

from tiny_models import byte_tokenizer

from isthmus.data.check import check
from isthmus.data.collate import Batch, collate
from isthmus.data.prompts import QuestionAnswer
from isthmus.data.sample import Sample, Turn
from isthmus.data.tokens import Writing
from isthmus.features import Grid, Plan

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
