"""Scores against the reference functions' outputs, and the normalisation by literal cases."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from isthmus.evaluate.answers import anls, edit_distance, exact_match, first_answer, normalise, relaxed_match, score

VECTORS = json.loads((Path(__file__).parent / "answer_vectors.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", VECTORS["anls"])
def test_anls_equals_the_reference(case: dict[str, object]) -> None:
    assert anls(str(case["prediction"]), list(case["targets"])) == pytest.approx(case["anls"], abs=1e-12)  # type: ignore[call-overload]


@pytest.mark.parametrize("case", VECTORS["relaxed"])
def test_relaxed_accuracy_equals_the_reference(case: dict[str, object]) -> None:
    assert relaxed_match(str(case["prediction"]), [str(case["target"])]) == float(bool(case["relaxed_correct"]))


def test_the_published_corpus_scores() -> None:
    pairs = list(zip(VECTORS["pix2struct_test"]["predictions"], VECTORS["pix2struct_test"]["targets"], strict=True))
    assert 100 * fmean(anls(said, right) for said, right in pairs) == pytest.approx(VECTORS["expected"]["anls"])
    relaxed = 100 * fmean(relaxed_match(said, right) for said, right in pairs)
    assert relaxed == pytest.approx(VECTORS["expected"]["relaxed_accuracy"])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" The  Top-Left. ", "top-left"),
        ("Two", "2"),
        ("a red circle!", "red circle"),
        ("50%", "50%"),
        ("-3", "-3"),
        ("'map'", "map"),
        ("\u201cRed\u201d", "red"),
        ("\u300c红色的圆\u300d\u3002", "红色的圆"),
    ],
)
def test_normalise(text: str, plain: str) -> None:
    assert normalise(text) == plain


def test_exact_match_forgives_form_but_not_content() -> None:
    assert exact_match("Three.", ["3"]) == 1.0
    assert exact_match("red circle", ["a circle", "the red circle"]) == 1.0
    assert exact_match("red", ["blue"]) == 0.0
    assert exact_match("", ["blue"]) == 0.0


def test_the_first_answer_ends_at_a_line_or_an_invented_question() -> None:
    assert first_answer(" red\nQuestion: what else?") == "red"
    assert first_answer("red Question: Where? Answer: left") == "red"


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3


def test_nothing_to_compare_with_is_refused() -> None:
    with pytest.raises(ValueError, match="no answers"):
        score("red", [])
