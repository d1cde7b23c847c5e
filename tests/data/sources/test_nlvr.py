"""The packed NLVR boxes: splits, permutations, layouts, questions."""

import random
from collections import Counter

import numpy as np
import pytest

from isthmus.data.sources import NlvrBoxes
from isthmus.data.sources.nlvr import FOLDER, ORDERS, BoxesImage, _examples, questions
from isthmus.data.sources.wordings import truth_question

RGB = {"yellow": (255, 255, 0), "black": (0, 0, 0), "blue": (0, 153, 255)}
CORNERS = {"square": ((0, 0), (55, 110), (110, 0)), "strip": ((0, 0), (150, 0), (300, 0))}


def test_splits_have_the_published_sizes_and_share_no_boxes() -> None:
    examples = {split: _examples(split, FOLDER) for split in ("train", "val", "test")}
    assert len(examples["train"]) == 989
    assert len(examples["val"]) + len(examples["test"]) == 990
    assert abs(len(examples["val"]) - len(examples["test"])) < 30
    groups = {split: {one.id.rsplit("-", 1)[0] for one in examples[split]} for split in examples}
    assert not groups["train"] & groups["test"] | groups["train"] & groups["val"] | groups["val"] & groups["test"]
    assert sum(one.label for one in examples["train"]) == 547


@pytest.mark.parametrize("layout", ["square", "strip"])
def test_every_object_is_where_its_list_says(layout: str) -> None:
    dataset = NlvrBoxes(task="truth", layout=layout).build()
    examples = _examples("train", FOLDER)
    for index in random.Random(0).sample(range(len(dataset)), 40):
        which, number = divmod(index, 6)
        image = dataset[index].images[0]
        assert isinstance(image, BoxesImage)
        pixels = np.asarray(image.load())
        assert pixels.shape == ((210, 210, 3) if layout == "square" else (100, 400, 3))
        for corner, box in zip(CORNERS[layout], examples[which].permuted(ORDERS[number]), strict=True):
            for one in box:
                x, y = corner[0] + one.x + one.side // 2, corner[1] + one.y + one.side // 2
                assert tuple(pixels[min(y, pixels.shape[0] - 1), x]) == RGB[one.colour], (index, one)


def test_samples_of_each_task() -> None:
    truth, exact, mixed = (NlvrBoxes(task=task).build()[8] for task in ("truth", "exact", "mixed"))
    assert [turn.text for turn in truth.turns][1] in ("yes", "no")
    assert truth.turns[0].text.startswith("<image>\nIs it true that: ")
    assert len(truth.turns) == 2
    assert len(exact.turns) == 8
    assert len(mixed.turns) == 10
    assert len(NlvrBoxes(permutations=2).build()) == 2 * 989


def test_a_sentence_is_cleaned() -> None:
    assert truth_question("There is  a Tower. ") == "Is it true that: there is a Tower."


def test_held_out_questions() -> None:
    truth = questions("truth", 10_000)
    assert len(truth) == len(_examples("test", FOLDER)) == len({sample.turns[0].text + sample.id for sample in truth})
    exact = questions("exact", 700)
    assert len(exact) == len({sample.id for sample in exact}) == 700
    answers = Counter(sample.meta["answers"][0] for sample in exact)
    assert 0.8 < answers["yes"] / answers["no"] < 1.25
    assert all(sample.meta["answers"][0] in sample.meta["choices"] for sample in exact + truth)
    assert {sample.meta["chance"] for sample in truth} == {0.5}
    assert questions("exact", 5) == exact[:5]


def unchecked(made: type[NlvrBoxes], **fields: object) -> NlvrBoxes:
    """A config as JSON or a command line may give it, without the tests' own type checks."""
    config = object.__new__(made)
    for name, value in {**NlvrBoxes().__dict__, **fields}.items():
        object.__setattr__(config, name, value)
    config.__post_init__()
    return config


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="knows the tasks"):
        unchecked(NlvrBoxes, task="count")
    with pytest.raises(ValueError, match="1 to 6 permutations"):
        NlvrBoxes(permutations=7)
    with pytest.raises(ValueError, match="split"):
        unchecked(NlvrBoxes, split="dev").build()
