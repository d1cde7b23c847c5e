"""Prompt styles: how the turns of a sample become text, image places and supervised text.

A style gives segments; each is tokenised by itself and without special tokens, so that the border between what is
asked and what is supervised never falls inside a token.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from isthmus.data.sample import ANY_MARK, IMAGE_MARK, MARKS, Sample, Turn, marks_of, with_turns


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a prompt: text, or the place of one image, video or sound. `exchange` counts the answers before it."""

    text: str = ""
    supervised: bool = False
    image: bool = False
    end: bool = False
    """The end-of-text token follows, supervised as the segment is."""
    special: bool = False
    """The text may hold special tokens: written by a chat template, never by a sample."""
    exchange: int = 0


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """How a sample is written out. `render` needs the tokenizer only for the tokenizer's own chat template."""

    @property
    def begins(self) -> bool:
        """Whether the text begins with the tokenizer's begin-of-text token, where it has one."""
        return True

    @property
    def stop(self) -> str:
        """Text that ends an answer besides the end-of-text token; empty when there is none."""
        return ""

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """The sample's segments. For generation a last assistant turn is left out, and its opening stays.

        Raises:
            ValueError: the sample does not fit this style.
        """
        raise AssertionError(f"{type(self).__name__} does not define render")


@dataclass(frozen=True, kw_only=True)
class Plain(PromptStyle):
    """Image, then caption and newline; the user's words are dropped. The loss is on the caption and its newline.

    Source: LLaVA (arXiv:2304.08485) section 4.2, stage 1. Checked against: haotian-liu/LLaVA `preprocess_plain`.
    """

    @property
    def stop(self) -> str:
        """A caption ends with its line."""
        return "\n"

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """One exchange for each caption."""
        segments: list[Segment] = []
        for exchange, turn in numbered(asked(sample, for_generation)):
            if turn.role == "assistant":
                segments += pieces(turn.text + "\n", exchange, supervised=True)
            else:
                segments += [Segment(image=True, exchange=exchange)] * len(marks_of(turn.text))
        return segments


@dataclass(frozen=True, kw_only=True)
class Caption(PromptStyle):
    """Image, begin of text, prompt, then caption and newline; the user's words are dropped.

    The loss is on the caption and its newline; without a prompt on the begin-of-text token as well, as in the released
    stage 2 of BLIP-2, which predicts it from the last visual token. For a causal language model.
    Source: BLIP-2 (arXiv:2301.12597), section 3.2; for "a photo of", appendix. Checked against: salesforce/LAVIS
    `blip2_opt.py` (oracles `blip2_stage2_opt*`).
    """

    prompt: str = ""
    """Stands before every caption, without loss: "a photo of" when fine-tuning for captions."""

    @property
    def begins(self) -> bool:
        """The token that begins the text is a segment of its own, because it may be supervised."""
        return False

    @property
    def stop(self) -> str:
        """A caption ends with its line."""
        return "\n"

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """One exchange for each caption."""
        begin = "" if tokenizer is None else tokenizer.bos_token or ""
        opening = [
            Segment(text=begin, special=True, supervised=not self.prompt and not for_generation),
            Segment(text=self.prompt),
        ]
        segments: list[Segment] = []
        begun = False
        for exchange, turn in numbered(asked(sample, for_generation)):
            if turn.role == "assistant":
                segments += [replace(one, exchange=exchange) for one in opening[begun:] if one.text]
                begun = True
                spaced = f" {turn.text.strip()}" if self.prompt else turn.text.strip()
                segments += pieces(spaced + "\n", exchange, supervised=True)
            else:
                segments += [Segment(image=True, exchange=exchange)] * len(marks_of(turn.text))
        if for_generation:
            last = segments[-1].exchange if segments else 0
            segments += [replace(one, exchange=last) for one in opening[begun:] if one.text]
        return segments


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer(PromptStyle):
    """`<image>`, newline, then `Question: {q} Answer:` and ` {a}` with the end of text, turn after turn.

    A user turn without words asks for a description: the answer then follows the newline directly.
    Source: BLIP-2 (arXiv:2301.12597) section 4.3. Checked against: salesforce/LAVIS `blip2_opt.py` `predict_answers`.
    """

    question: str = "Question: {} Answer:"
    """How a question is put; `{}` is its place."""
    after_images: str = "\n"
    """Stands between the images and the words; nothing in BLIP-2 and InstructBLIP."""

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """One exchange for each question and answer."""
        before, _, after = self.question.partition("{}")
        segments: list[Segment] = []
        asking = False
        for exchange, turn in numbered(asked(sample, for_generation)):
            if turn.role == "assistant":
                answer = turn.text.strip()
                segments += pieces(f" {answer}" if asking else answer, exchange, supervised=True, end=True)
                asking = False
                continue
            places, words = leading_images(turn.text)
            segments += [Segment(image=True, exchange=exchange)] * places
            opening = self.after_images if places else ""
            asking = bool(words) and turn.role == "user"
            if asking:
                words = f"{before}{words}{after}"
            elif words:
                words = f"{words}\n"
            segments += pieces(opening + words, exchange)
        return segments


@dataclass(frozen=True, kw_only=True)
class Vicuna(PromptStyle):
    """LLaVA's "v1" conversation: a system sentence, `USER: ... ASSISTANT:`, and the end of text after each answer.

    Source: LLaVA-1.5 (arXiv:2310.03744). Checked against: haotian-liu/LLaVA `conversation.py` `conv_vicuna_v1` and
    `preprocess_v1`.
    """

    system: str = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """One exchange for each user turn and its answer; a system turn of the sample replaces the sentence."""
        system = self.system
        segments: list[Segment] = []
        opening = ""
        for exchange, turn in numbered(asked(sample, for_generation)):
            if turn.role == "system":
                system = turn.text
            elif turn.role == "user":
                places, words = leading_images(turn.text)
                images = f"{IMAGE_MARK}\n" * places  # pieces ask where inputs stand, not which
                opening = f"{opening}USER: {images}{words} ASSISTANT:"
                if exchange == 0:
                    opening = f"{system} {opening}"
                segments += pieces(opening, exchange)
                opening = ""
            else:
                segments += pieces(f" {turn.text}", exchange, supervised=True, end=True)
        return segments


@dataclass(frozen=True, kw_only=True)
class ChatTemplate(PromptStyle):
    """The tokenizer's own chat template; answers and the token that ends them are supervised."""

    @property
    def begins(self) -> bool:
        """A template writes its own begin-of-text token."""
        return False

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """The template is applied to stand-ins, which the sample's texts then replace.

        So a special token written in a sample is plain text.

        Raises:
            ValueError: the tokenizer has no chat template, or its template leaves out a turn or refuses one.
        """
        if getattr(tokenizer, "chat_template", None) is None:
            raise ValueError(
                "The prompt style ChatTemplate needs a tokenizer with a chat template, and this one has none. "
                "Use the prompt style QuestionAnswer or Vicuna."
            )
        turns = asked(sample, for_generation)
        messages = [{"role": turn.role, "content": _stand_in(index)} for index, turn in enumerate(turns)]
        try:
            text = _apply(tokenizer, messages, for_generation)
        except TemplateError as error:
            raise ValueError(
                f"The tokenizer's chat template takes no conversation of {', '.join(turn.role for turn in turns)} "
                f"(sample {sample.id!r}): {error}. Leave such turns out, or use the prompt style Vicuna."
            ) from error
        segments: list[Segment] = []
        for index, (exchange, turn) in enumerate(numbered(turns)):
            before, found, text = text.partition(_stand_in(index))
            if not found:
                raise ValueError(
                    f"The tokenizer's chat template leaves out the {turn.role} turn (sample {sample.id!r})."
                )
            segments.append(Segment(text=before, special=True, exchange=exchange))
            answers = turn.role == "assistant"
            segments += pieces(turn.text.strip(), exchange, supervised=answers)
            if answers:
                closing = _apply(tokenizer, messages[: index + 1], False).rpartition(_stand_in(index))[2]
                ending = _first_special(closing, tokenizer)
                if ending:
                    segments.append(Segment(text=ending, supervised=True, special=True, exchange=exchange))
                    text = text.removeprefix(ending)
                else:
                    segments[-1] = replace(segments[-1], end=True)
        segments.append(Segment(text=text, special=True, exchange=segments[-1].exchange if segments else 0))
        return [segment for segment in segments if segment.text or segment.image or segment.end]


@dataclass(frozen=True, kw_only=True)
class Bounded(PromptStyle):
    """Another style with a token before and after every image, as Idefics2 and Qwen-VL write them.

    Source: Idefics2 (arXiv:2405.02246). Checked against: `Idefics2Processor` of `transformers` (tests/exchange).
    """

    style: PromptStyle = field(default_factory=QuestionAnswer)
    before: str = "<fake_token_around_image>"
    after: str = "<fake_token_around_image>"

    @property
    def begins(self) -> bool:
        """As the inner style."""
        return self.style.begins

    @property
    def stop(self) -> str:
        """As the inner style."""
        return self.style.stop

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """The inner style's segments, each image between its two tokens; two images side by side share one of them."""
        segments: list[Segment] = []
        inner = self.style.render(sample, tokenizer, for_generation=for_generation)
        for number, segment in enumerate(inner):
            if not segment.image:
                segments.append(segment)
                continue
            follows = number > 0 and inner[number - 1].image and self.before == self.after
            if not follows:
                segments.append(Segment(text=self.before, special=True, exchange=segment.exchange))
            segments += [segment, Segment(text=self.after, special=True, exchange=segment.exchange)]
        return segments


PROMPTS: dict[str, type[PromptStyle]] = {
    "plain": Plain,
    "caption": Caption,
    "question-answer": QuestionAnswer,
    "vicuna": Vicuna,
    "chat-template": ChatTemplate,
    "bounded": Bounded,
}
"""Every prompt style by name."""


def asked(sample: Sample, for_generation: bool) -> tuple[Turn, ...]:
    """The turns to write out: all of them, or for generation those before a last assistant turn."""
    if for_generation and sample.turns and sample.turns[-1].role == "assistant":
        return sample.turns[:-1]
    return sample.turns


def numbered(turns: tuple[Turn, ...]) -> Iterator[tuple[int, Turn]]:
    """Each turn with the number of answers before it."""
    answers = 0
    for turn in turns:
        yield answers, turn
        answers += turn.role == "assistant"


def leading_images(text: str) -> tuple[int, str]:
    """How many marks a text begins with, and the rest without surrounding space; a lone mark at its end counts too."""
    places = 0
    text = text.strip()
    while found := ANY_MARK.match(text):
        places += 1
        text = text[found.end() :].lstrip()
    if text.endswith(tuple(MARKS)) and len(marks_of(text)) == 1:
        return places + 1, ANY_MARK.sub("", text).rstrip()
    return places, text


def pieces(text: str, exchange: int, *, supervised: bool = False, end: bool = False) -> list[Segment]:
    """A text with marks as segments; images are never supervised, and `end` goes to the last text."""
    parts = ANY_MARK.split(text)
    segments: list[Segment] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part or (end and last):
            segments.append(Segment(text=part, supervised=supervised, end=end and last, exchange=exchange))
        if not last:
            segments.append(Segment(image=True, exchange=exchange))
    return segments


def split_turns(sample: Sample, *, history: bool = True) -> list[Sample]:
    """One sample for each answer, for encoder-decoders, whose decoder learns one answer at a time.

    With `history` the earlier questions and answers stand before the question; without, only their images do.
    """
    made: list[Sample] = []
    taken = 0
    for index, turn in enumerate(sample.turns):
        if turn.role != "assistant":
            continue
        before = sample.turns[:index]
        if not history:
            start = max((i + 1 for i, one in enumerate(before) if one.role == "assistant"), default=0)
            marks = [mark for one in before[:start] for mark in marks_of(one.text)]
            kept = [one for one in before[:start] if one.role == "system"]
            shown = "".join(f"{mark}\n" for mark in marks)
            first = replace(before[start], text=shown + before[start].text) if start < index else None
            before = (*kept, *((first, *before[start + 1 :]) if first is not None else ()))
        turns = (*before, turn)
        kept_inputs = sample.inputs[: sum(len(marks_of(one.text)) for one in turns)]
        made.append(replace(with_turns(sample, turns, kept_inputs), id=f"{sample.id}#{taken}"))
        taken += 1
    return made


def _stand_in(index: int) -> str:
    return f"\u2039turn{index}\u203a"


def _apply(tokenizer: Any, messages: list[dict[str, str]], open_answer: bool) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_answer)
    return text


def _first_special(closing: str, tokenizer: Any) -> str:
    """The closing of an answer up to and with its first special token; empty when it has none."""
    found = [(closing.find(token), token) for token in {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}]
    places = [(place, token) for place, token in found if place >= 0 and token]
    if not places:
        return ""
    place, token = min(places)
    return closing[: place + len(token)]
