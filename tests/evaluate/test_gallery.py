"""Retrieval over a gallery: recalls of literal scores, and a tiny model's scores against pair by pair."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from tiny_stage1 import captioned, drawn_model

from isthmus.data.captions import captions_of
from isthmus.data.sample import ImageRef
from isthmus.evaluate.gallery import NOT_JUDGED, make_gallery, recall, retrieve_both_ways
from isthmus.features import Features, Grid, Plan
from isthmus.model import VisionLanguageModel

SAMPLES = captioned((1, "a red one"), (1, "a"), (2, "two"), (3, "third"), (4, "no"), (4, "two"))


class Eye:
    """Features drawn at random for each picture, equal for equal pictures."""

    def features(self, images: Sequence[ImageRef]) -> tuple[Features, tuple[Plan, ...]]:
        rows = [torch.randn(4, 16, generator=torch.Generator().manual_seed(int(one.key.split()[2]))) for one in images]
        plans = [Plan(size=(16, 16), tiles=Grid(1, 1, 1), views=range(row, row + 1)) for row in range(len(rows))]
        return Features(tokens=torch.stack(rows), grid=Grid(1, 2, 2)), tuple(plans)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return drawn_model(tmp_path_factory.mktemp("models"))


def test_recall_of_literal_scores() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.7, 0.2], [0.0, 0.3, 0.3]])
    found = recall(scores, scores, torch.eye(3, dtype=torch.bool))
    assert found.to_text == pytest.approx((1 / 3, 1.0, 1.0))  # the tie of the last row counts against it
    assert found.to_image == pytest.approx((2 / 3, 1.0, 1.0))
    constant = torch.zeros(20, 20)
    assert recall(constant, constant, torch.eye(20, dtype=torch.bool)).to_text == (0.0, 0.0, 0.0)
    several = torch.tensor([[True, True, False], [False, False, True]])
    assert recall(scores[:2], scores[:2], several).to_text[0] == pytest.approx(0.5)


def test_equal_images_and_texts_count_once() -> None:
    gallery = make_gallery(SAMPLES)
    assert (len(gallery.images), len(gallery.texts)) == (4, 5)
    assert gallery.belongs.tolist() == [
        [True, True, False, False, False],
        [False, False, True, False, False],
        [False, False, False, True, False],
        [False, False, True, False, True],
    ]
    with pytest.raises(ValueError, match="one sample at least"):
        make_gallery([])


@pytest.mark.parametrize("batch_size", [2, 32])
def test_scores_are_those_of_each_pair_alone(model: VisionLanguageModel, batch_size: int) -> None:
    gallery = make_gallery(SAMPLES)
    found = retrieve_both_ways(model, gallery, encoder=Eye(), k=2, batch_size=batch_size)
    judged = 0
    for row, image in enumerate(gallery.images):
        features, _ = Eye().features([image])
        for column, sample in enumerate(gallery.texts):
            captions, _ = captions_of([sample], tokenizer=model.tokenizer, style=model.config.captions, form="bert")
            with torch.no_grad():
                reading = model.connector.reading(features, captions)
                similar = float((reading.images("queries")[0] @ reading.texts()[0]).max())
                score = similar + float(reading.match(captions.match, [0], None)[0, 1])
            assert float(found.compared[row, column]) == pytest.approx(similar, abs=1e-5)
            best_texts = found.compared[row].topk(2).indices.tolist()
            best_images = found.compared[:, column].topk(2).indices.tolist()
            wanted = score if column in best_texts else NOT_JUDGED
            assert float(found.to_text[row, column]) == pytest.approx(wanted, abs=1e-4)
            wanted = score if row in best_images else NOT_JUDGED
            assert float(found.to_image[row, column]) == pytest.approx(wanted, abs=1e-4)
            judged += column in best_texts or row in best_images
    assert found.num_judged == judged


def test_without_judging_the_comparison_alone_counts(model: VisionLanguageModel) -> None:
    found = retrieve_both_ways(model, make_gallery(SAMPLES), encoder=Eye(), k=0)
    assert found.num_judged == 0
    assert found.judged == found.by_comparison
    assert torch.equal(found.to_text, found.compared)


def test_a_model_that_answers_is_refused(model: VisionLanguageModel) -> None:
    silent = replace(model.config, connector=replace(model.config.connector, embedding=0))
    other = VisionLanguageModel(silent, with_encoder=False)
    with pytest.raises(ValueError, match="llm=None whose connector has its heads"):
        retrieve_both_ways(other, make_gallery(SAMPLES), encoder=Eye())
