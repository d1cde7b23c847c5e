"""Scores against the reference functions' outputs, and the normalisation by literal cases."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from isthmus.evaluate.answers import (
    METRICS,
    Metric,
    anls,
    compared,
    edit_distance,
    exact_match,
    first_answer,
    normalise,
    relaxed_match,
    score,
)

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


@pytest.mark.parametrize(
    ("metric", "prediction", "answers", "given", "wanted"),
    [
        ("exact", "The Two.", ("2", "A pair"), "2", ("2", "pair")),
        ("anls", "Main STREET", ("Main Street",), "main street", ("main street",)),
        ("relaxed", "12%", ("0.125",), "0.12", ("0.125",)),
        ("relaxed", "12%", ("0",), "12%", ("0",)),
        ("relaxed", "0.0", ("0", "3"), "0.0", ("0", "3")),
        ("relaxed", "North", ("5", "NORTH"), "north", ("5", "north")),
        ("vqa", "The two", ("two", "2", "a pair"), "2", ("2", "2", "pair")),
        ("vqa", "The two", ("The two", "The two"), "The two", ("The two", "The two")),
        ("yes-no", "No, it is not.", ("no",), "no", ("no",)),
        ("gqa", "Left.", ("left", "Left"), "left", ("left", "Left")),
        ("box", "<box>(100,200),(1200,400)</box> or (1,2),(3,4)", ("(100,200),(300,400)",), "(100,200),(999,400)",
         ("(100,200),(300,400)",)),
        ("box", "somewhere", ("(1,2),(3,4)",), "", ("(1,2),(3,4)",)),
    ],
)  # fmt: skip
def test_what_a_metric_compares(
    metric: Metric, prediction: str, answers: tuple[str, ...], given: str, wanted: tuple[str, ...]
) -> None:
    assert compared(prediction, answers, metric) == (given, wanted)


@pytest.mark.parametrize("metric", ["exact", "yes-no", "gqa", "vqa"])
def test_the_forms_that_are_compared_decide_the_score(metric: Metric) -> None:
    """Where equality is all that counts: a prediction scores above 0 if it stands among the answers in their forms."""
    said = ("The two", "two", "2", "Two.", "no", "No", "yes, a dog", "not a dog", "left.", "Left", "dog, cat", "")
    answers = (("2",), ("no",), ("yes",), ("left", "dog"), ("dog cat", "The two", "no dog"), ("two", "two", "two"))
    outcomes = set()
    for prediction in said:
        for wanted in answers:
            given, forms = compared(prediction, wanted, metric)
            agreeing = forms.count(given)
            right = agreeing > 1 if metric == "vqa" else agreeing > 0  # one of the people is left out in turn
            right = right or (metric == "vqa" and agreeing == 1 and len(forms) > 1)
            assert (score(prediction, wanted, metric) > 0.0) is right, (prediction, wanted)
            outcomes.add(right)
    assert outcomes == {True, False}


def test_every_metric_says_what_it_compares() -> None:
    for metric in METRICS:
        given, forms = compared("(1,2),(3,4)", ("(1,2),(3,4)",), metric)
        assert (given == forms[0]) is (metric != "yes-no")
