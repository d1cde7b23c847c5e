"""How a question is put, where a run is asked otherwise than it was trained: BLIP-2 is trained on captions alone.

Source: BLIP-2 (arXiv:2301.12597), section 4.1: `Question: {} Answer:` before OPT, `Question: {} Short answer:` before
Flan-T5, five beams and a length penalty of -1.
"""

from dataclasses import dataclass, replace
from typing import Any

from isthmus.data.prompts import Bounded, Caption, Plain, PromptStyle, QuestionAnswer, Segment
from isthmus.data.sample import Sample


@dataclass(frozen=True, kw_only=True)
class OneLine(PromptStyle):
    """Another style whose answers end with their line, as captions do that a model was trained on."""

    style: PromptStyle

    @property
    def begins(self) -> bool:
        """As the inner style."""
        return self.style.begins

    @property
    def stop(self) -> str:
        """The end of the line, as `blip2_opt.py` has it."""
        return "\n"

    def render(self, sample: Sample, tokenizer: Any = None, *, for_generation: bool = False) -> list[Segment]:
        """The inner style's segments."""
        return self.style.render(sample, tokenizer, for_generation=for_generation)


def put_as(style: PromptStyle, question: str) -> PromptStyle:
    """The style with every question put as `question`, whose `{}` is its place.

    Styles of captions, which drop the user's words, give way to `QuestionAnswer` with nothing after the image; its
    answers end with their line.

    Raises:
        ValueError: no single `{}`, or a style with a form of chat that leaves no choice.
    """
    if question.count("{}") != 1:
        raise ValueError(
            f"The form of a question holds its place once, as {{}}, but {question!r} has it {question.count('{}')} "
            f"times. Write for example 'Question: {{}} Short answer:'."
        )
    match style:
        case QuestionAnswer():
            return replace(style, question=question)
        case Bounded() | OneLine():
            return replace(style, style=put_as(style.style, question))
        case Plain() | Caption():
            return OneLine(style=QuestionAnswer(question=question, after_images=""))
    raise ValueError(
        f"{type(style).__name__} writes questions in the form of its chat. Leave the form out, and write what should "
        f"stand around a question into the question."
    )


def drops_questions(style: PromptStyle) -> bool:
    """Whether the user's words never reach the model: styles of captions show images alone."""
    inner = style.style if isinstance(style, Bounded | OneLine) else style
    return isinstance(inner, Plain | Caption)


def refuse_dropped(style: PromptStyle, run: object, otherwise: str) -> None:
    """Raises ValueError when a question put to this run would never reach the model; `otherwise` is another way out."""
    if drops_questions(style):
        raise ValueError(
            f"{run} was trained on captions alone (prompt {type(style).__name__}), so it would not read the question. "
            f"Say how to put it, --prompt 'Question: {{}} Answer:', or {otherwise}."
        )
