"""Descriptions told from wrong ones: literal swaps, whose caption wins, and the bounds of shares."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from test_gallery import Eye
from tiny_stage1 import captioned, drawn_model

from isthmus.data.sources.world import HELD_OUT, WorldStyle, make_scene
from isthmus.data.sources.world_swaps import PLAIN, swapped, swaps
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.bounds import difference_bounds, share_bounds
from isthmus.evaluate.gallery import make_gallery, retrieve_both_ways
from isthmus.evaluate.pairs import prefer
from isthmus.model import VisionLanguageModel


def words(text: str) -> list[str]:
    return sorted(text.lower().replace(",", "").replace(".", "").replace(" an ", " a ").split())


def test_exchanged_says_the_same_words_and_replaced_another() -> None:
    for sample in swaps("exchanged", 30):
        told, wrong = sample.turns[1].text, sample.meta["wrong"]
        assert told != wrong
        assert words(f" {told}") == words(f" {wrong}")
    for sample in swaps("replaced", 30):
        told, wrong = words(f" {sample.turns[1].text}"), words(f" {sample.meta['wrong']}")
        lost = [word for word in told if told.count(word) > wrong.count(word)]
        assert len(set(lost)) == 1
        assert len(told) == len(wrong)


def test_a_swap_makes_no_pair_that_training_never_shows() -> None:
    for number in range(200):
        for swap in ("exchanged", "replaced"):
            changed = swapped(make_scene(number, "test", PLAIN), random.Random(number), swap)
            assert changed is None or not any((item.colour, item.shape) in HELD_OUT for item in changed[0].items)


def test_swaps_are_held_out_and_always_the_same() -> None:
    assert swaps("exchanged", 5) == swaps("exchanged", 5)
    assert all("/test/" in sample.id for sample in swaps("replaced", 3))
    with pytest.raises(ValueError, match="2 items or more"):
        swaps("exchanged", 1, style=WorldStyle(items=(1, 2)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return drawn_model(tmp_path_factory.mktemp("models"))


def test_the_caption_with_the_higher_score_wins(model: VisionLanguageModel) -> None:
    texts = ("a red one", "two", "third", "none at all")
    samples = captioned(*enumerate(texts))
    pairs = [replace(sample, meta={"wrong": texts[(place + 1) % 4]}) for place, sample in enumerate(samples)]
    won = prefer(model, pairs, encoder=Eye(), batch_size=3)
    scores = retrieve_both_ways(model, make_gallery(samples), encoder=Eye())
    for place in range(4):
        other = (place + 1) % 4
        assert won.compared[place] == float(scores.compared[place, place] > scores.compared[place, other])
        assert won.judged[place] == float(scores.to_text[place, place] > scores.to_text[place, other])
    same = [replace(sample, meta={"wrong": text}) for sample, text in zip(samples, texts, strict=True)]
    assert prefer(model, same, encoder=Eye()).judged == (0.5, 0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"no meta\['wrong'\]"):
        prefer(model, samples, encoder=Eye())


def test_the_textbook_gallery_has_more_than_500_held_out_figures() -> None:
    gallery = make_gallery(ALIGNMENT["gallery/textbook"].make("test", 1_000))
    assert (len(gallery.images), len(gallery.texts)) == (571, 562)
    whole = ALIGNMENT["gallery/textbook-all"]
    larger = make_gallery(whole.make("test", 2_000))
    assert (len(larger.images), len(larger.texts)) == (1_080, 1_058)
    assert len(whole.make("val", 2_000)) == 509
    assert not {one.id for one in whole.make("test", 2_000)} & {one.id for one in whole.make("train", 10_000)}
    assert len(ALIGNMENT["swaps/exchanged"].make("test", 7)) == 7
    assert [task.name for task in ALIGNMENT.values()] == list(ALIGNMENT)


def test_bounds_of_a_share() -> None:
    assert share_bounds(10.0, 100) == pytest.approx((0.05523, 0.17437), abs=1e-4)
    assert share_bounds(0.0, 20)[0] == 0.0
    assert share_bounds(20.0, 20)[1] == 1.0
    with pytest.raises(ValueError, match="at most as many right"):
        share_bounds(3.0, 2)


def test_bounds_of_a_difference_count_scenes() -> None:
    left, right = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    mean, low, high = difference_bounds(left, right, ["a", "b", "c", "d"])
    assert mean == 0.5
    # the standard error of (1, 0, 0, 1) is sqrt(1/3) / 2
    assert (low, high) == pytest.approx((0.5 - 1.959964 * 0.288675, 0.5 + 1.959964 * 0.288675), abs=1e-5)
    _, together, _ = difference_bounds([*left, *left], [*right, *right], ["a", "b", "c", "d"] * 2)
    assert together == pytest.approx(low)
    with pytest.raises(ValueError, match="two groups"):
        difference_bounds([1.0], [0.0], ["a"])
