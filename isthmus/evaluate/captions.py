"""Caption metrics: BLEU, ROUGE-L and CIDEr, over words that are separated by spaces.

Sources: BLEU (ACL 2002, P02-1040), ROUGE-L (ACL 2004, W04-1013), CIDEr-D (arXiv:1411.5726). Checked against:
coco-caption (salaniz/pycocoevalcap), corpus and single images (oracles `metric_captions*`). METEOR and SPICE are not
here: both are Java programs with their own data, and another METEOR gives other numbers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

Gram = tuple[str, ...]
_LONGEST = 4
_TINY, _SMALL = 1e-15, 1e-9
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """The scores of one image or of a whole set. BLEU of a set is not the mean of its images' BLEU."""

    bleu: tuple[float, float, float, float]
    rouge_l: float
    cider: float


@dataclass(frozen=True)
class _Matches:
    right: tuple[int, ...]
    guessed: tuple[int, ...]
    length: int
    wanted: int


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[CaptionScores, list[CaptionScores]]:
    """Scores of the set and of each image, from tokenised captions (`caption_words`) and their references.

    CIDEr takes its document frequencies from the references of this very set, so that one image alone scores 0.

    Raises:
        ValueError: no image, not a list of references for each candidate, or an image without references.
    """
    if not candidates or len(candidates) != len(references) or not all(references):
        raise ValueError(
            f"Caption metrics want one candidate and one reference or more for every image, got {len(candidates)} "
            f"candidates and references for {sum(map(bool, references))} of {len(references)} images."
        )
    matches = [_match(said, wanted) for said, wanted in zip(candidates, references, strict=True)]
    rouge = [rouge_l(said, wanted) for said, wanted in zip(candidates, references, strict=True)]
    ciders = cider(candidates, references)
    single = [
        CaptionScores(bleu=_bleu([one]), rouge_l=r, cider=c) for one, r, c in zip(matches, rouge, ciders, strict=True)
    ]
    return CaptionScores(bleu=_bleu(matches), rouge_l=fmean(rouge), cider=fmean(ciders)), single


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """F-measure (beta 1.2) of the longest common subsequence; best precision and best recall taken separately."""
    said = candidate.split(" ")
    common = [(_longest_common(said, one.split(" ")), len(one.split(" "))) for one in references]
    precision = max(length / len(said) for length, _ in common)
    recall = max(length / size for length, size in common)
    if not precision or not recall:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every image: clipped, with a length penalty of sigma 6, times 10."""
    grams = [[_grams(one) for one in wanted] for wanted in references]
    holding = Counter(gram for wanted in grams for gram in set().union(*wanted))
    images = math.log(len(references))

    def weighed(counts: Counter[Gram]) -> list[dict[Gram, float]]:
        by_length: list[dict[Gram, float]] = [{} for _ in range(_LONGEST)]
        for gram, number in counts.items():
            by_length[len(gram) - 1][gram] = number * (images - math.log(max(1.0, holding[gram])))
        return by_length

    scores = []
    for said, wanted in zip(candidates, grams, strict=True):
        counts = _grams(said)
        mine = weighed(counts)
        total = sum(_alike(mine, _pairs(counts), weighed(one), _pairs(one)) for one in wanted)
        scores.append(10.0 * total / len(wanted))
    return scores


def _alike(mine: list[dict[Gram, float]], length: int, theirs: list[dict[Gram, float]], other: int) -> float:
    """The mean over n of the clipped cosine of two captions, times the penalty on their difference in length."""
    penalty = math.exp(-((length - other) ** 2) / (2 * _CIDER_SIGMA**2))
    cosines = []
    for own, others in zip(mine, theirs, strict=True):
        product = sum(min(value, others.get(gram, 0.0)) * others.get(gram, 0.0) for gram, value in own.items())
        norms = math.hypot(*own.values()) * math.hypot(*others.values())
        cosines.append(product / norms if norms else product)
    return penalty * fmean(cosines)


def _grams(text: str) -> Counter[Gram]:
    words = text.split()
    return Counter(
        tuple(words[start : start + size]) for size in range(1, _LONGEST + 1) for start in range(len(words) - size + 1)
    )


def _pairs(counts: Counter[Gram]) -> int:
    """A caption's length as the penalty counts it: in pairs of words."""
    return sum(number for gram, number in counts.items() if len(gram) == 2)


def _match(candidate: str, references: Sequence[str]) -> _Matches:
    said, length = _grams(candidate), len(candidate.split())
    most: Counter[Gram] = Counter()
    for one in references:
        most |= _grams(one)
    right = [0] * _LONGEST
    for gram, number in said.items():
        right[len(gram) - 1] += min(number, most[gram])
    guessed = tuple(max(0, length - size) for size in range(_LONGEST))
    _, wanted = min((abs(len(one.split()) - length), len(one.split())) for one in references)
    return _Matches(tuple(right), guessed, length, wanted)


def _bleu(matches: Sequence[_Matches]) -> tuple[float, float, float, float]:
    """BLEU-1 to 4 of summed counts against the closest reference lengths, with coco-caption's two small constants."""
    ratio = (sum(one.length for one in matches) + _TINY) / (sum(one.wanted for one in matches) + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for size in range(_LONGEST):
        right = sum(one.right[size] for one in matches)
        guessed = sum(one.guessed[size] for one in matches)
        product *= (right + _TINY) / (guessed + _SMALL)
        scores.append(brevity * product ** (1 / (size + 1)))
    one, two, three, four = scores
    return one, two, three, four


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for a in left:
        before = 0
        for place, b in enumerate(right, start=1):
            before, row[place] = row[place], before + 1 if a == b else max(row[place], row[place - 1])
    return row[-1]
