"""Prompt styles as chat templates, so that a processor writes a conversation as the model was trained to read it.

A message's content is text, or a list of image and text parts. The templates are held to the styles themselves by the
certificate, which compares token ids, and by tests/exchange/test_templates.py.
"""

import json
from typing import Any

from isthmus.data.prompts import Bounded, ChatTemplate, Plain, PromptStyle, QuestionAnswer, Vicuna
from isthmus.data.sample import IMAGE_MARK, Sample, Turn

_MARK = IMAGE_MARK + "{{ after }}"
_MACROS = (
    "{% macro words(content) %}{% if content is string %}{{ content }}{% else %}"
    "{% for part in content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}{% endmacro %}"
    "{% macro images(content, after) %}{% if content is not string %}"
    "{% for part in content if part.type in ['image', 'image_url'] %}" + _MARK + "{% endfor %}{% endif %}{% endmacro %}"
)


def chat_template(style: PromptStyle, tokenizer: Any, *, bounds: bool = False) -> str:
    """The Jinja template that writes a conversation as `style` does; with `bounds` also the tokens around images.

    Without, those are left to a processor that writes them itself.

    Raises:
        ValueError: a style that has no template here.
    """
    begin = "{{ bos_token }}" if tokenizer.bos_token is not None and style.begins else ""
    end = " + eos_token" if tokenizer.eos_token is not None else ""
    if isinstance(style, Bounded):
        inner = chat_template(style.style, tokenizer)
        around = _text(style.before) + IMAGE_MARK + _text(style.after) + "{{ after }}"
        return inner.replace(_MARK, around) if bounds else inner
    if isinstance(style, QuestionAnswer):
        return _MACROS + begin + _question_answer(style, end)
    if isinstance(style, Vicuna):
        return _MACROS + begin + _vicuna(style, end)
    if isinstance(style, Plain):
        return _MACROS + begin + _PLAIN
    if isinstance(style, ChatTemplate):
        return _MACROS + _AS_TEXT + str(tokenizer.chat_template)
    raise ValueError(f"The prompt style {type(style).__name__} cannot be written as a chat template. Use Vicuna.")


def prompt_text(style: PromptStyle, question: str, tokenizer: Any) -> str:
    """What a processor without a chat template is given: the prompt of one question about one image, without marks.

    Raises:
        ValueError: the style puts words before the image, which then cannot stand in front of everything.
    """
    turn = Turn(role="user", text=f"{IMAGE_MARK}\n{question}")
    sample = Sample(id="asked", turns=(turn,), images=(_Nothing(),))
    segments = style.render(sample, tokenizer, for_generation=True)
    if any(segment.special for segment in segments):
        raise ValueError(
            "A processor without a chat template cannot write special tokens: use QuestionAnswer or Vicuna."
        )
    return "".join(segment.text for segment in segments if not segment.image)


class _Nothing:
    """An image that is never loaded."""

    key = "nothing"

    def load(self) -> Any:
        raise AssertionError("a prompt is written without its images")


def _text(text: str) -> str:
    return "{{ " + json.dumps(text) + " }}" if text else ""


def _question_answer(style: QuestionAnswer, end: str) -> str:
    before, _, after = style.question.partition("{}")
    return (
        "{% set state = namespace(asking=false) %}{% for message in messages %}"
        "{% set said = words(message.content) | trim %}{% set seen = images(message.content, '') %}"
        "{% if message.role == 'assistant' %}"
        "{{ (' ' if state.asking else '') + said" + end + " }}{% set state.asking = false %}"
        "{% else %}{{ seen }}{% if seen %}{{ '\\n' }}{% endif %}"
        "{% if message.role == 'user' and said %}"
        + _text(before)
        + "{{ said }}"
        + _text(after)
        + "{% set state.asking = true %}{% elif said %}{{ said + '\\n' }}{% endif %}{% endif %}{% endfor %}"
    )


def _vicuna(style: Vicuna, end: str) -> str:
    return (
        "{% set state = namespace(system=" + json.dumps(style.system) + ", first=true) %}"
        "{% for message in messages %}{% set said = words(message.content) | trim %}"
        "{% if message.role == 'system' %}{% set state.system = words(message.content) %}"
        "{% elif message.role == 'user' %}{% if state.first %}{{ state.system + ' ' }}{% endif %}"
        "{{ 'USER: ' + images(message.content, '\\n') + said + ' ASSISTANT:' }}"
        "{% else %}{{ ' ' + words(message.content)" + end + " }}{% set state.first = false %}{% endif %}{% endfor %}"
    )


_PLAIN = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ words(message.content) + '\\n' }}"
    "{% else %}{{ images(message.content, '') }}{% endif %}{% endfor %}"
)
_AS_TEXT = (
    "{% set state = namespace(plain=[]) %}{% for message in messages %}"
    "{% set said = images(message.content, '\\n') + (words(message.content) | trim) %}"
    "{% set state.plain = state.plain + [{'role': message.role, 'content': said}] %}{% endfor %}"
    "{% set messages = state.plain %}"
)
