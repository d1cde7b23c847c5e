"""Asking a tiny model: order, one answer for equal prompts, what each control shows."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_stage import COLOURS, Swatch, tiny_model

from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.encoders import CachedEncoder, FeatureCache
from isthmus.evaluate import runner
from isthmus.evaluate.blank import BlankImage
from isthmus.evaluate.retrieval import retrieve
from isthmus.evaluate.runner import evaluate, shuffled
from isthmus.evaluate.sight import OwnEncoder, Sight, mean_view
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel


def item(number: int, question: str = "What colour?", answer: str | None = None) -> Sample:
    colour = COLOURS[number % 4]
    return Sample(
        id=f"item/{number}",
        turns=(Turn(role="user", text=f"{IMAGE_MARK}\n{question}"),),
        images=(Swatch(colour=colour, number=0),),
        meta={"answers": (answer or colour,), "family": "colour"},
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    torch.manual_seed(0)
    return VisionLanguageModel(tiny_model(tmp_path_factory.mktemp("models")), with_encoder=False).eval()


@pytest.fixture
def encoder(model: VisionLanguageModel, tmp_path: Path) -> CachedEncoder:
    return CachedEncoder(model.config.encoder, FeatureCache(tmp_path), chunk=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Sample]]:
    """The batches that reach the model, which answers each picture by its key's colour."""
    batches: list[list[Sample]] = []

    def ask(model: Any, items: Sequence[Sample], sight: Sight, generation: Generation) -> list[tuple[str, str]]:
        batches.append(list(items))
        return [(f"asked {one.turns[0].text}", one.images[0].key.split()[-3]) for one in items]

    monkeypatch.setattr(runner, "_ask", ask)
    return batches


def test_answers_come_in_order_and_are_scored(
    model: VisionLanguageModel, encoder: CachedEncoder, asked: list[list[Sample]]
) -> None:
    items = [item(0), item(1), item(2, answer="yellow")]
    answers = evaluate(model, items, encoder=encoder, batch_size=2)
    assert [answer.prediction for answer in answers] == ["red", "green", "blue"]
    assert [answer.score for answer in answers] == [1.0, 1.0, 0.0]
    assert [(answer.compared, answer.compared_with) for answer in answers] == [
        ("red", ("red",)), ("green", ("green",)), ("blue", ("yellow",)),
    ]  # fmt: skip
    assert [len(batch) for batch in asked] == [2, 1]


def test_what_is_compared_is_kept_beside_what_was_said(
    model: VisionLanguageModel, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_ask", lambda model, items, sight, options: [("", "A Red one!") for _ in items])
    wanted = item(0, answer="the Red one")
    boxed = replace(wanted, id="boxed", meta={**wanted.meta, "answers": ("(1,2),(3,4)",), "metric": "box"})
    words, box = evaluate(model, [wanted, boxed], encoder=encoder)
    assert (words.prediction, words.answers, words.score) == ("A Red one!", ("the Red one",), 1.0)
    assert (words.compared, words.compared_with) == ("red 1", ("red 1",))
    assert (box.prediction, box.compared, box.compared_with) == ("A Red one!", "", ("(1,2),(3,4)",))


def test_equal_prompts_are_answered_once(
    model: VisionLanguageModel, encoder: CachedEncoder, asked: list[list[Sample]]
) -> None:
    items = [item(0), item(4), item(0, "Is it?"), item(1)]
    assert len(evaluate(model, items, encoder=encoder)) == 4
    assert sum(len(batch) for batch in asked) == 3


def test_controls_ask_every_unique_question_once(
    model: VisionLanguageModel, encoder: CachedEncoder, asked: list[list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(number, question) for number in range(4) for question in ("What colour?", "Is it?")]
    evaluate(model, items, encoder=encoder, control="mean-image")
    assert sum(len(batch) for batch in asked) == 2
    monkeypatch.setattr(runner, "_ask", lambda model, items, sight, options: [("", one.images[0].key) for one in items])
    blind = evaluate(model, items, encoder=encoder, control="text-only")
    assert {answer.prediction for answer in blind} == {BlankImage().key}


def test_the_mean_view_is_the_mean_over_different_pictures(encoder: CachedEncoder) -> None:
    images = [one.images[0] for one in (item(0), item(1), item(1))]
    red, green = (encoder.features([image])[0].tokens for image in images[:2])
    mean = mean_view(encoder, images)
    torch.testing.assert_close(mean.tokens, (red + green) / 2)
    shown, plans = Sight(encoder=encoder, mean=mean).features(images)
    assert shown.tokens.shape[0] == 3
    assert len(plans) == 3
    torch.testing.assert_close(shown.tokens[2:], mean.tokens)


def test_a_models_own_encoder_sees_what_the_cache_holds(model: VisionLanguageModel, encoder: CachedEncoder) -> None:
    with pytest.raises(ValueError, match="with_encoder=True"):
        OwnEncoder(model)
    own = OwnEncoder(VisionLanguageModel(model.config))
    images = [item(0).images[0], item(1).images[0]]
    kept, plans = encoder.features(images)
    seen, own_plans = own.features(images)
    torch.testing.assert_close(seen.tokens, kept.tokens, atol=2e-3, rtol=2e-3)
    assert own_plans == plans


def test_shuffling_leaves_no_item_its_own_picture() -> None:
    items = [item(number) for number in (0, 0, 0, 1, 1, 2, 3)]
    moved = shuffled(items, seed=1)
    assert [one.id for one in moved] == [one.id for one in items]
    assert all(new.images != old.images for new, old in zip(moved, items, strict=True))
    assert sorted(one.images[0].key for one in moved) == sorted(one.images[0].key for one in items)
    assert [one.images for one in shuffled(items, seed=1)] == [one.images for one in moved]


def test_a_real_model_answers_the_same_alone_and_in_a_batch(model: VisionLanguageModel, encoder: CachedEncoder) -> None:
    items = [item(0), item(1, "Is it a long question?"), item(2)]
    options = Generation(max_new_tokens=4)
    together = evaluate(model, items, encoder=encoder, generation=options)
    alone = [evaluate(model, [one], encoder=encoder, generation=options)[0] for one in items]
    assert together == alone
    assert together[1].prompt == "<image>\nQuestion: Is it a long question? Answer:"


def test_retrieval_takes_the_likeliest_picture(
    model: VisionLanguageModel, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = tuple(Swatch(colour=colour, number=0) for colour in COLOURS)
    meta = {"answers": ("a green one",), "candidates": candidates, "right": 1}
    asked = replace(item(1, "Describe."), meta=meta)
    found = retrieve(model, [asked], encoder=encoder)[0]
    assert found.prediction in {f"picture {place}" for place in (1, 2, 3, 4)}
    assert found.score == float(found.prediction == "picture 2")
    blind = retrieve(model, [asked], encoder=encoder, control="text-only")[0]
    assert blind.score == 0.25
    with pytest.raises(ValueError, match="no shuffled control"):
        retrieve(model, [asked], encoder=encoder, control="shuffled")
