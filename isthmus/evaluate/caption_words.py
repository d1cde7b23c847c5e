"""Words of a caption as coco-caption counts them: Penn Treebank tokens, lower-cased, without punctuation.

Checked against: Stanford PTBTokenizer 3.4.1 with coco-caption's list of punctuation, on captions (oracles
`metric_captions*`). It covers English captions; the Java program has more rules for addresses, money and abbreviations.
"""

import re

_DROPPED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|sr|jr|st|gen|sen|rep|gov|capt|lt|col|sgt|inc|corp|co|ltd|etc|vs|no|fig|jan|feb|mar|apr|jun|jul"
    "|aug|sep|sept|oct|nov|dec"
)
_TOKEN = re.compile(
    rf"""
    (?:[a-z]\.){{2,}}                        # u.s.
    | (?-i:\b[B-HJ-Z]\.)                     # an initial
    | (?:{_ABBREVIATIONS})\.(?=\s+\w)
    | \d+(?:st|nd|rd|th)\b
    | [+-]?\d+(?:[-.,:/]\d+)*(?:-?[a-z]+)*   # 5, 5.00, 1,000, 5:30, 3-story, 1789-2018, 4y
    | \.\d+
    | [a-z]+(?=n['\u2019]t\b)                # does | n't
    | n['\u2019]t\b
    | ['\u2019](?:s|d|m|re|ve|ll)\b
    | o['\u2019]clock | rock['\u2019]?n['\u2019]?roll | y['\u2019]all
    | [^\W_]+(?:[-_&/][^\W_]+)*              # t-shirt, and/or
    | --+ | \.\.+ | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CANNOT = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "wanna": ("wan", "na"), "gotta": ("got", "ta")}


def caption_words(caption: str) -> str:
    """The caption's words with single spaces between them."""
    text = caption.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')
    words: list[str] = []
    for token in (found.lower() for found in _TOKEN.findall(text)):
        if token in ('"', "\u2013", "\u2014") or token in _DROPPED or set(token) <= {".", "-"}:
            continue
        words += _CANNOT.get(token, (_BRACKETS.get(token, token),))
    return " ".join(words)
