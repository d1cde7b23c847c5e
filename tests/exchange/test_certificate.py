"""What a certificate says of two models that said something."""

import torch

from isthmus.exchange.certificate import Said, compare


def said(*logits: float, writing: tuple[int, ...] = (5,)) -> Said:
    return Said(ids=[1, 2], logits=torch.tensor(logits), writing=list(writing))


def test_the_largest_logit_is_told_of_models_that_are_equal() -> None:
    worst, wrong = compare([said(3.0, -7.0)], [said(3.0, -7.0)], ["a"], 1e-5)
    assert (worst.difference, worst.largest, wrong) == (0.0, 7.0, [])


def test_the_largest_logit_and_difference_may_be_of_two_samples() -> None:
    mine, theirs = [said(9.0, 0.0), said(1.0, 0.0)], [said(9.0, 0.0), said(1.5, 0.0)]
    worst, wrong = compare(mine, theirs, ["a", "b"], 1e-5)
    assert (worst.difference, worst.largest) == (0.5, 9.0)
    assert wrong == ["b: logits differ by 0.5 of 1.5"]


def test_every_kind_of_difference_is_told() -> None:
    others = [Said(ids=[1], logits=torch.zeros(2), writing=[5]), said(0.0, 0.0, writing=(6,)), said(float("nan"), 0.0)]
    _, wrong = compare([said(0.0, 0.0)] * 3, others, ["a", "b", "c"], 1e-5)
    assert wrong == [
        "a: the prompt's token ids differ (2 against 1)",
        "b: the greedy writings differ",
        "c: logits differ by nan of nan",
    ]
