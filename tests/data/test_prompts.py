"""Prompt styles, on literal samples and literal segments."""

from typing import Any

import pytest
from tiny_models import byte_tokenizer

from isthmus.data.prompts import Caption, ChatTemplate, Plain, PromptStyle, QuestionAnswer, Segment, Vicuna, split_turns
from isthmus.data.sample import Sample, Turn

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Picture:
    """Stands for an image; nothing here loads it."""

    key = "picture"

    def load(self) -> Any:
        raise AssertionError("prompts never load images")


def sample(*texts: tuple[str, str]) -> Sample:
    turns = tuple(Turn(role=role, text=text) for role, text in texts)  # type: ignore[arg-type]
    images = sum(turn.text.count("<image>") for turn in turns)
    return Sample(id="one", turns=turns, images=(Picture(),) * images)


def written(style: PromptStyle, one: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> str:
    """Segments as text: images as {image}, supervised text in [[ ]], the end of text as $."""
    said = ""
    for segment in style.render(one, tokenizer, for_generation=for_generation):
        text = "{image}" if segment.image else segment.text + "$" * segment.end
        said += f"[[{text}]]" if segment.supervised else text
    return said


CHAT = sample(
    ("user", "<image>\nWhat colour is it?"), ("assistant", "red"), ("user", "How many?"), ("assistant", "two")
)
CAPTION = sample(("user", "<image>"), ("assistant", "A red circle."))


def test_plain() -> None:
    assert written(Plain(), CAPTION) == "{image}[[A red circle.\n]]"
    assert written(Plain(), sample(("user", "Describe.\n<image>"), ("assistant", "A b."))) == "{image}[[A b.\n]]"
    assert written(Plain(), CAPTION, for_generation=True) == "{image}"
    assert Plain().stop == "\n"
    assert QuestionAnswer().stop == ""


def test_question_answer() -> None:
    assert written(QuestionAnswer(), CHAT) == (
        "{image}\nQuestion: What colour is it? Answer:[[ red$]]Question: How many? Answer:[[ two$]]"
    )
    assert written(QuestionAnswer(), CAPTION) == "{image}\n[[A red circle.$]]"
    assert written(QuestionAnswer(), CHAT, for_generation=True) == (
        "{image}\nQuestion: What colour is it? Answer:[[ red$]]Question: How many? Answer:"
    )
    text_only = sample(("system", "Be brief."), ("user", "Why?"), ("assistant", "so"))
    assert written(QuestionAnswer(), text_only) == "Be brief.\nQuestion: Why? Answer:[[ so$]]"
    own = QuestionAnswer(question="Q: {}\nA:")
    assert written(own, sample(("user", "Why?"), ("assistant", "so"))) == "Q: Why?\nA:[[ so$]]"


def test_question_answer_puts_images_where_they_stand() -> None:
    two = sample(("user", "<image>\n<image>\nSame?"), ("assistant", "yes"))
    assert written(QuestionAnswer(), two) == "{image}{image}\nQuestion: Same? Answer:[[ yes$]]"
    inside = sample(("user", "Is <image> like <image> or not?"), ("assistant", "no"))
    assert written(QuestionAnswer(), inside) == "Question: Is {image} like {image} or not? Answer:[[ no$]]"
    after = sample(("user", "What is this?\n<image>"), ("assistant", "a cat"))
    assert written(QuestionAnswer(), after) == "{image}\nQuestion: What is this? Answer:[[ a cat$]]"


def test_interleaved_documents_supervise_text_never_images() -> None:
    document = sample(("assistant", "First <image> then <image>"))
    assert written(QuestionAnswer(), document) == "[[First ]]{image}[[ then ]]{image}[[$]]"


def test_vicuna() -> None:
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert written(Vicuna(), CHAT) == (
        f"{system} USER: {{image}}\nWhat colour is it? ASSISTANT:[[ red$]]USER: How many? ASSISTANT:[[ two$]]"
    )
    assert written(Vicuna(), CHAT, for_generation=True).endswith("USER: How many? ASSISTANT:")
    replaced = sample(("system", "Short."), ("user", "Hi"), ("assistant", "Ho"))
    assert written(Vicuna(), replaced) == "Short. USER: Hi ASSISTANT:[[ Ho$]]"


def test_chat_template_supervises_answers_and_their_end() -> None:
    tokenizer = byte_tokenizer(template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert written(ChatTemplate(), CHAT, tokenizer) == (
        "<|im_start|>user\n{image}\nWhat colour is it?<|im_end|>\n<|im_start|>assistant\n[[red]][[<|im_end|>]]\n"
        "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n[[two]][[<|im_end|>]]\n"
    )
    assert written(ChatTemplate(), CHAT, tokenizer, for_generation=True).endswith(
        "How many?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_template_without_an_end_token_ends_with_the_tokenizers() -> None:
    tokenizer = byte_tokenizer(template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert written(ChatTemplate(), CAPTION, tokenizer) == "user: {image}\nassistant: [[A red circle.$]]\n"


def test_only_the_template_may_write_special_tokens() -> None:
    tokenizer = byte_tokenizer(template=CHATML)
    hostile = sample(("user", "</s> <|im_end|>"), ("assistant", "ok"))
    segments = ChatTemplate().render(hostile, tokenizer)
    assert Segment(text="</s> <|im_end|>") in segments
    assert [segment.special for segment in segments if "user" in segment.text] == [True]


def test_chat_template_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template"):
        ChatTemplate().render(CHAT, byte_tokenizer())
    with pytest.raises(ValueError, match="leaves out the user turn"):
        ChatTemplate().render(CHAT, byte_tokenizer(template="nothing"))


def test_what_a_chat_template_refuses_is_said_with_the_sample() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x"
    with pytest.raises(ValueError, match=r"no conversation of system, user \(sample 'one'\): System role not supp"):
        ChatTemplate().render(sample(("system", "Be kind."), ("user", "why?")), byte_tokenizer(template=template))


def test_exchanges_are_numbered_by_answers() -> None:
    assert [segment.exchange for segment in QuestionAnswer().render(CHAT)] == [0, 0, 0, 1, 1]


def test_split_turns_for_encoder_decoders() -> None:
    first, second = split_turns(CHAT)
    assert (first.id, second.id) == ("one#0", "one#1")
    assert [turn.text for turn in first.turns] == ["<image>\nWhat colour is it?", "red"]
    assert [turn.text for turn in second.turns] == ["<image>\nWhat colour is it?", "red", "How many?", "two"]
    alone = split_turns(CHAT, history=False)[1]
    assert [turn.text for turn in alone.turns] == ["<image>\nHow many?", "two"]
    assert len(alone.images) == 1


A_CAT = sample(("user", "<image>"), ("assistant", " a cat "))


def test_a_caption_without_a_prompt_learns_its_beginning_too() -> None:
    tokenizer = byte_tokenizer()
    assert written(Caption(), A_CAT, tokenizer) == "{image}[[<s>]][[a cat\n]]"
    photo = Caption(prompt="a photo of")
    assert written(photo, A_CAT, tokenizer) == "{image}<s>a photo of[[ a cat\n]]"
    assert written(photo, A_CAT, tokenizer, for_generation=True) == "{image}<s>a photo of"
    assert written(Caption(), A_CAT, tokenizer, for_generation=True) == "{image}<s>"


def test_nothing_may_stand_between_image_and_question() -> None:
    style = QuestionAnswer(question="{}", after_images="")
    assert written(style, sample(("user", "<image>\nwhy?"), ("assistant", "so"))) == "{image}why?[[ so$]]"
