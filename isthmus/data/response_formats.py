"""Response-format prompts: a sentence that says how the answer should look, so that one model serves several forms.

Source: LLaVA-1.5 (arXiv:2310.03744), section 3.2 and appendix, where it follows the question on a line of its own;
Honeybee (arXiv:2312.06742) puts it before the question.
"""

from dataclasses import replace
from typing import Literal

from isthmus.data.sample import ANY_MARK, Sample, Turn

ResponseFormat = Literal["short", "letter", "caption", "region", "box", "answerable"]
FormatPlace = Literal["after", "before"]

RESPONSE_FORMATS: dict[ResponseFormat, str] = {
    "short": "Answer the question using a single word or phrase.",
    "letter": "Answer with the option's letter from the given choices directly.",
    "caption": "Provide a one-sentence caption for the provided image.",
    "region": "Provide a short description for this region.",
    "box": "Provide the bounding box coordinate of the region this sentence describes.",
    "answerable": (
        "When the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    ),
}
"""The sentences, word for word. LLaVA-1.5: short for VQAv2, GQA, OKVQA, OCRVQA, TextVQA, MME and POPE; letter for
A-OKVQA, ScienceQA, MMBench and SEED; caption for TextCaps; region and box for VG and RefCOCO; answerable for VizWiz."""


def formatted(words: str, wanted: ResponseFormat, place: FormatPlace = "after") -> str:
    """A question with its response format; what stands at its front (`<image>` marks) stays there."""
    sentence = RESPONSE_FORMATS[wanted]
    if place == "after":
        return f"{words}\n{sentence}" if words else sentence
    start = max((mark.end() for mark in ANY_MARK.finditer(words)), default=0)
    front, question = words[:start], words[start:].strip()
    opening = f"{front}\n" if front else ""
    return f"{opening}{sentence} {question}".rstrip()


def with_format(sample: Sample, wanted: ResponseFormat, place: FormatPlace = "after") -> Sample:
    """A sample whose every user turn asks for a form of answer."""

    def turn(one: Turn) -> Turn:
        return replace(one, text=formatted(one.text, wanted, place)) if one.role == "user" else one

    return replace(sample, turns=tuple(turn(one) for one in sample.turns))
