"""Intersection over union, and the scores made of it."""

import pytest

from isthmus.evaluate.answers import score
from isthmus.evaluate.grounding import answer_iou, grounding, iou

HALF = "<box>(0,0),(999,500)</box>"


def test_iou() -> None:
    assert iou((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)) == 1.0
    assert iou((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)) == 0.0
    assert iou((0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)) == pytest.approx(1 / 7)
    assert iou((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)) == 0.0


def test_the_first_box_of_an_answer_counts() -> None:
    assert answer_iou(f"it is {HALF} or <box>(1,1),(2,2)</box>", (HALF,)) == 1.0
    assert answer_iou("nowhere", (HALF,)) == 0.0
    assert answer_iou(HALF, ("<box>(1,1),(2,2)</box>", HALF)) == 1.0
    with pytest.raises(ValueError, match="A grounding answer is a box"):
        answer_iou(HALF, ("a cat",))


def test_scores() -> None:
    whole = "<box>(0,0),(999,999)</box>"
    scores = grounding([HALF, whole, "no box", "(0,0),(999,100)"], [(HALF,)] * 4)
    assert scores.accuracy == 0.5
    assert scores.mean_iou == pytest.approx((1 + 500 / 999 + 0 + 0.2) / 4)
    assert scores.with_box == 0.75
    assert score(whole, (HALF,), "box") == 1.0
    assert score("(0,0),(999,100)", (HALF,), "box") == 0.0
    with pytest.raises(ValueError, match="answers for each prediction"):
        grounding([], [])
