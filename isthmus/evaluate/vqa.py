"""VQA accuracy: ten people answered; how many of them say what the model says.

Source: VQA (arXiv:1505.00468). Checked against: GT-Vision-Lab/VQA `vqaEval.py`, salesforce/LAVIS `vqa_eval.py` and
haotian-liu/LLaVA `m4c_evaluator.py` (TextVQA), with their slips, which published numbers contain (oracles
`metric_vqa*`).
"""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

VqaFlavour = Literal["official", "lavis", "textvqa"]
"""Whose code: the challenge's own; LAVIS's copy, which always normalises the prediction but of the answers only the
punctuation; or TextVQA's, which always normalises both and splits the possessive off."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
_THOUSANDS = {"official": re.compile(r"\d,\d"), "textvqa": re.compile(r"(?<=\d),+(?=\d)")}
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_SHORT_FORMS = tuple(
    """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
    """.split()  # noqa: SIM905  (a table of words)
)


def _without_one_apostrophe() -> dict[str, str]:
    """Every short form that lacks exactly one of its apostrophes, with its right spelling."""
    found = {"somebody'd": "somebodyd"}  # the other way round in every copy of the table
    for right in _SHORT_FORMS:
        places = [place for place, letter in enumerate(right) if letter == "'"]
        found |= {right[:place] + right[place + 1 :]: right for place in places}
    return found


_MISSPELT = _without_one_apostrophe()


def plain_punctuation(text: str, flavour: VqaFlavour = "official") -> str:
    """Marks next to a space anywhere in the text are deleted, others become a space; periods go unless a digit follows.

    A number with a thousands comma anywhere has every mark deleted. At most 32 periods go, as in the reference.
    """
    thousands = _THOUSANDS["textvqa" if flavour == "textvqa" else "official"].search(text) is not None
    plain = text
    for mark in _PUNCTUATION:
        near_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if near_space or thousands else " ")
    return _PERIOD.sub("", plain, count=_MOST_PERIODS)


def plain_words(text: str) -> str:
    """Lower case, number words as digits, no articles, short forms with their apostrophes."""
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_MISSPELT.get(word, word) for word in words if word not in _ARTICLES)


def plain_answer(text: str, flavour: VqaFlavour = "official") -> str:
    """A whole answer normalised as a flavour does it."""
    if flavour == "textvqa":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return plain_words(plain_punctuation(_one_line(text), flavour))


def vqa_forms(prediction: str, answers: Sequence[str], flavour: VqaFlavour = "official") -> tuple[str, tuple[str, ...]]:
    """Prediction and answers as a flavour compares them; the official one leaves both where all people agree."""
    given = _one_line(prediction)
    if flavour == "textvqa":
        return plain_answer(prediction, flavour), tuple(plain_answer(answer, flavour) for answer in answers)
    said = [answer if flavour == "lavis" else _one_line(answer) for answer in answers]
    differ = len(set(said)) > 1
    if differ or flavour == "lavis":
        given = plain_answer(prediction)
    if differ:
        said = [plain_punctuation(one) for one in said]
        said = [plain_words(one) for one in said] if flavour == "official" else said
    return given, tuple(said)


def vqa_accuracy(prediction: str, answers: Sequence[str], flavour: VqaFlavour = "official") -> float:
    """The mean over the people left out in turn of min(1, how many of the others said so / 3), in 0..1.

    In the official flavour nothing is normalised when all people wrote exactly the same.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError(f"The prediction {prediction!r} has no answers to be compared with: give at least one.")
    given, said = vqa_forms(prediction, answers, flavour)
    agreeing = sum(one == given for one in said)
    return fmean(min(1.0, (agreeing - (one == given)) / 3) for one in said)


def vqa_summary(
    accuracies: Sequence[float], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float | dict[str, float]]:
    """Percentages rounded to two decimals: overall, and for every grouping by the name of the group."""
    found: dict[str, float | dict[str, float]] = {"overall": round(100 * fmean(accuracies), 2)}
    for grouping, names in (groups or {}).items():
        found[grouping] = {
            name: round(100 * fmean(one for one, own in zip(accuracies, names, strict=True) if own == name), 2)
            for name in dict.fromkeys(names)
        }
    return found


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
