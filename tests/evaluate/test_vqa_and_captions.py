"""What is particular to the metrics: refusals, and scores that can be worked out by hand."""

import pytest

from isthmus.evaluate.answers import score
from isthmus.evaluate.caption_words import caption_words
from isthmus.evaluate.captions import cider, rouge_l, score_captions
from isthmus.evaluate.vqa import plain_answer, vqa_accuracy
from isthmus.evaluate.yes_no import pope


def test_vqa_counts_the_others_who_agree() -> None:
    answers = ["red"] * 3 + ["blue"] * 7
    assert vqa_accuracy("red", answers) == pytest.approx((3 * 2 / 3 + 7 * 1.0) / 10)
    assert vqa_accuracy("The RED.", answers) == vqa_accuracy("red", answers)
    assert vqa_accuracy("The RED.", ["red"] * 10) == 0.0, "nothing is normalised when all agree"
    assert vqa_accuracy("green", answers) == 0.0


def test_vqa_normalises_short_forms_and_numbers() -> None:
    assert plain_answer("two dogs, dont") == "2 dogs don't"
    assert plain_answer("1,000") == "1000"


def test_metrics_by_name() -> None:
    assert score("No, there is none.", ("no",), "yes-no") == 1.0
    assert score("Blue.", ("blue",), "gqa") == 1.0
    assert score("red", ("red",) * 5, "vqa") == 1.0


def test_pope_of_always_yes() -> None:
    scores = pope(["Yes"] * 4, ["yes", "no", "yes", "no"])
    assert (scores.accuracy, scores.precision, scores.recall, scores.yes_ratio) == (0.5, 0.5, 1.0, 1.0)
    assert scores.f1 == pytest.approx(2 / 3)
    assert pope([], []).accuracy == 0.0
    with pytest.raises(ValueError, match="'yes' or 'no' for each answer"):
        pope(["Yes"], ["maybe"])


def test_caption_scores_by_hand() -> None:
    corpus, single = score_captions(["a cat sat down", "a dog"], [["a cat sat down"], ["the dog"]])
    assert single[0].bleu == pytest.approx((1.0, 1.0, 1.0, 1.0), abs=1e-6)
    assert corpus.bleu[0] == pytest.approx(5 / 6, abs=1e-6)
    assert rouge_l("a dog", ["the dog"]) == pytest.approx(0.5)
    assert cider(["a cat"], [["a cat"]]) == [0.0], "one image alone has no document frequencies"
    with pytest.raises(ValueError, match="one candidate and one reference or more"):
        score_captions(["a"], [[]])


def test_caption_words() -> None:
    assert caption_words("A man's T-shirt, isn't it?") == "a man 's t-shirt is n't it"
    assert caption_words("George W. Bush (left)") == "george w. bush -lrb- left -rrb-"
