"""A chat template writes what its prompt style writes."""

from dataclasses import replace
from typing import Any

import pytest
from tiny_models import byte_tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from isthmus.data.prompts import Bounded, ChatTemplate, Plain, PromptStyle, QuestionAnswer, Vicuna
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.exchange.templates import chat_template, prompt_text

OWN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
STYLES: dict[str, PromptStyle] = {
    "question-answer": QuestionAnswer(),
    "braces": QuestionAnswer(question='Ask "{}" {% raw %} \\ now:'),
    "vicuna": Vicuna(),
    "plain": Plain(),
    "own": ChatTemplate(),
}


class Nothing:
    key = "nothing"

    def load(self) -> Any:
        raise AssertionError


def said(style: PromptStyle, turns: tuple[Turn, ...], tokenizer: Any, *, ask: bool) -> str:
    """The style's own text, with the image marks that a processor replaces."""
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    segments = style.render(Sample(id="a", turns=turns, images=(Nothing(),) * marks), tokenizer, for_generation=ask)
    begin = tokenizer.bos_token if style.begins else ""
    return begin + "".join(
        (IMAGE_MARK if one.image else one.text) + (tokenizer.eos_token if one.end else "") for one in segments
    )


def written(template: str, turns: tuple[Turn, ...], tokenizer: Any, *, ask: bool) -> str:
    messages = []
    for turn in turns:
        parts: list[dict[str, str]] = [{"type": "image"}] * turn.text.count(IMAGE_MARK)
        text = turn.text.replace(f"{IMAGE_MARK}\n", "")
        messages.append({"role": turn.role, "content": [*parts, {"type": "text", "text": text}] if parts else text})
    made, _ = render_jinja_template(
        conversations=[messages], chat_template=template, add_generation_prompt=ask, **tokenizer.special_tokens_map
    )
    return str(made[0])


@pytest.mark.parametrize("name", list(STYLES))
@pytest.mark.parametrize("num_turns", [1, 2, 3])
def test_templates_write_what_styles_write(name: str, num_turns: int) -> None:
    tokenizer = byte_tokenizer(template=OWN)
    turns = (
        Turn(role="user", text=f"{IMAGE_MARK}\nWhat is {{it}}?"),
        Turn(role="assistant", text="A cat."),
        Turn(role="user", text="And now?"),
    )[:num_turns]
    style = STYLES[name]
    ask = turns[-1].role == "user"
    mine = said(style, turns, tokenizer, ask=ask)
    assert written(chat_template(style, tokenizer), turns, tokenizer, ask=ask) == mine
    assert mine.count(IMAGE_MARK) == 1


def test_a_bounded_style_leaves_its_tokens_to_the_processor() -> None:
    tokenizer = byte_tokenizer()
    assert chat_template(Bounded(style=Vicuna()), tokenizer) == chat_template(Vicuna(), tokenizer)


@pytest.mark.parametrize("name", list(STYLES))
def test_a_template_with_the_bounds_of_a_style(name: str) -> None:
    tokenizer = byte_tokenizer(template=OWN)
    style = Bounded(style=STYLES[name], before='<"{{a>', after="</a>")
    turns = (Turn(role="user", text=f"{IMAGE_MARK}\nWhat?"),)
    mine = said(style, turns, tokenizer, ask=True)
    assert written(chat_template(style, tokenizer, bounds=True), turns, tokenizer, ask=True) == mine
    assert '<"{{a><image></a>' in mine


def test_the_prompt_as_text() -> None:
    assert prompt_text(QuestionAnswer(), "Why?", None) == "\nQuestion: Why? Answer:"
    assert prompt_text(QuestionAnswer(question="{}"), "Why?", None) == "\nWhy?"
    with pytest.raises(ValueError, match="special tokens"):
        prompt_text(ChatTemplate(), "Why?", byte_tokenizer(template=OWN))


def test_a_style_without_a_template_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        chat_template(replace(PromptStyle()), byte_tokenizer())


def test_bounds_stand_around_every_image() -> None:
    style = Bounded(style=Vicuna(system="s"), before="<a>", after="<a>")
    turns = (Turn(role="user", text=f"{IMAGE_MARK}{IMAGE_MARK}\nWhat?"),)
    assert said(Bounded(style=Plain(), before="<a>", after="<b>"), turns, byte_tokenizer(), ask=True) == (
        "<s><a><image><b><a><image><b>"
    )
    assert said(replace(style, style=Plain()), turns, byte_tokenizer(), ask=True) == "<s><a><image><a><image><a>"
