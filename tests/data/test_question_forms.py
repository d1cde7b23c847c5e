"""Questions put as a run was not trained: BLIP-2's words, and what they may be put into."""

import pytest

from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, Caption, ChatTemplate, Plain, PromptStyle, QuestionAnswer, Vicuna
from isthmus.data.question_forms import drops_questions, put_as
from isthmus.data.sample import Sample, Turn

ASKED = Sample(
    id="one",
    turns=(Turn(role="user", text="<image>\nHow many dogs?"),),
    images=(FileImage(root="", path="dogs.png"),),
)
SHORT = "Question: {} Short answer:"


def written(style: PromptStyle) -> str:
    return "".join("<image>" if one.image else one.text for one in style.render(ASKED, for_generation=True))


@pytest.mark.parametrize(
    ("style", "wanted"),
    [
        (Caption(), "<image>Question: How many dogs? Short answer:"),
        (Plain(), "<image>Question: How many dogs? Short answer:"),
        (QuestionAnswer(), "<image>\nQuestion: How many dogs? Short answer:"),
        (QuestionAnswer(question="{}", after_images=""), "<image>Question: How many dogs? Short answer:"),
        (Bounded(style=Plain(), before="<a>", after="<b>"), "<a><image><b>Question: How many dogs? Short answer:"),
    ],
)
def test_blip2s_words_before_an_encoder_decoder(style: PromptStyle, wanted: str) -> None:
    assert written(put_as(style, SHORT)) == wanted


def test_blip2s_words_before_a_decoder_that_writes_lines() -> None:
    style = put_as(Caption(), "Question: {} Answer:")
    assert written(style) == "<image>Question: How many dogs? Answer:"
    assert (style.stop, style.begins) == (Caption().stop, True)
    assert put_as(QuestionAnswer(), SHORT).stop == ""
    assert put_as(put_as(Caption(), SHORT), "Q: {} A:") == put_as(Caption(), "Q: {} A:")


def test_what_leaves_no_choice_is_refused() -> None:
    for style in (Vicuna(), ChatTemplate()):
        with pytest.raises(ValueError, match=rf"{type(style).__name__} writes questions in the form of its chat"):
            put_as(style, SHORT)
    for question in ("Answer:", "{} {}"):
        with pytest.raises(ValueError, match="holds its place once"):
            put_as(Caption(), question)


def test_styles_of_captions_never_show_a_question() -> None:
    silent = (Plain(), Caption(), Caption(prompt="a photo of"), Bounded(style=Plain()))
    assert [drops_questions(style) for style in silent] == [True] * 4
    assert [drops_questions(style) for style in (QuestionAnswer(), Vicuna(), Bounded())] == [False] * 3
    for style in silent[:3]:
        assert "dogs" not in written(style)
