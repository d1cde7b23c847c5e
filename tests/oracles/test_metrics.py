"""Metrics against the reference scripts' own numbers: VQA, captions, POPE, GQA, ANLS and relaxed accuracy."""

import json
from typing import Any

import pytest
from oracle_files import FOLDER, oracles, tabled

from isthmus.evaluate.answers import anls, anls_of_challenge, relaxed_match
from isthmus.evaluate.caption_words import caption_words
from isthmus.evaluate.captions import CaptionScores, score_captions
from isthmus.evaluate.vqa import VqaFlavour, plain_answer, plain_punctuation, vqa_accuracy, vqa_summary
from isthmus.evaluate.yes_no import gqa_answer, gqa_match, pope, read_yes_no

FLAVOURS: dict[VqaFlavour, str] = {
    "official": "accuracy_official",
    "lavis": "accuracy_lavis",
    "textvqa": "accuracy_textvqa_m4c",
}


def table(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


@oracles("metric_vqa")
def test_vqa(name: str) -> None:
    wanted = table(name)
    for case in wanted["strings"]:
        raw = case["raw"]
        assert plain_punctuation(case["after_strip"]) == case["after_punctuation"], raw
        assert plain_answer(raw) == case["processed"], raw
        assert plain_answer(raw, "textvqa") == case["textvqa_m4c_processed"], raw
    cases = wanted["accuracy_cases"]
    for flavour, field in FLAVOURS.items():
        got = [vqa_accuracy(case["prediction"], case["answers"], flavour) for case in cases]
        assert [round(100 * one, 2) for one in got] == [case[field] for case in cases]
        groups = {
            "perQuestionType": [case["question_type"] for case in cases],
            "perAnswerType": [case["answer_type"] for case in cases],
        }
        if flavour in wanted["overall"]:
            assert vqa_summary(got, groups) == wanted["overall"][flavour]
    tabled(name, len(wanted["strings"]) + 3 * len(cases))


def assert_scores(got: CaptionScores, wanted: dict[str, float]) -> None:
    """Every number of the table but METEOR, which is a Java program with its own paraphrase tables."""
    for place, value in enumerate(got.bleu, start=1):
        assert value == pytest.approx(wanted[f"bleu_{place}"], abs=1e-5)
    assert got.rouge_l == pytest.approx(wanted["rouge_l"], abs=1e-5)
    assert got.cider == pytest.approx(wanted["cider"], abs=1e-5)


@oracles("metric_captions")
def test_captions(name: str) -> None:
    wanted = table(name)
    images = wanted["images"]
    corpus, single = score_captions(
        [image["hypothesis_tokenized"] for image in images], [image["references_tokenized"] for image in images]
    )
    assert_scores(corpus, wanted["corpus"])
    for got, image in zip(single, images, strict=True):
        assert_scores(got, image)
        assert caption_words(image["hypothesis"]) == image["hypothesis_tokenized"]
        assert [caption_words(one) for one in image["references"]] == image["references_tokenized"]
    tabled(name, len(images) + 1, {"meteor": "a Java program with paraphrase tables of its own"})


@oracles("metric_pope_gqa")
def test_pope_and_gqa(name: str) -> None:
    wanted = table(name)
    assert [read_yes_no(answer) for answer in wanted["answers"]] == wanted["predictions"]
    scores = pope(wanted["answers"], wanted["labels"])
    counts = (scores.true_positives, scores.false_positives, scores.true_negatives, scores.false_negatives)
    assert counts == (wanted["TP"], wanted["FP"], wanted["TN"], wanted["FN"])
    for field in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert getattr(scores, field) == pytest.approx(wanted[field], abs=1e-6)
    for case in wanted["gqa"]:
        assert gqa_answer(case["prediction"]) == case["converted"]
        assert gqa_match(case["prediction"], (case["answer"],)) == float(case["correct"])
    right = sum(case["correct"] for case in wanted["gqa"])
    assert 100 * right / len(wanted["gqa"]) == pytest.approx(wanted["gqa_accuracy"], abs=1e-6)
    tabled(name, len(wanted["answers"]) + len(wanted["gqa"]))


@oracles("metric_anls_relaxed")
def test_anls_and_relaxed(name: str) -> None:
    wanted = table(name)
    challenge = []
    for case in wanted["anls"]:
        assert anls(case["prediction"], case["answers"]) == pytest.approx(case["anls_pix2struct"], abs=1e-6)
        challenge.append(anls_of_challenge(case["prediction"], case["answers"]))
        assert challenge[-1] == pytest.approx(case["anls_official"], abs=1e-6), case
    assert sum(challenge) / len(challenge) == pytest.approx(wanted["anls_overall_official"], abs=1e-6)
    for case in wanted["relaxed"]:
        assert relaxed_match(case["prediction"], (case["target"],)) == float(case["correct"]), case
    tabled(name, len(wanted["anls"]) + len(wanted["relaxed"]))
