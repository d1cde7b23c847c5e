"""Boxes of the exact world: answers that are the truth, phrases that fit one thing."""

import pytest

from isthmus.data.boxes import parse_boxes
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world_boxes import WorldBoxes, grounding_items
from isthmus.evaluate.grounding import iou


def test_the_answer_is_the_box_of_the_named_thing() -> None:
    source = WorldBoxes(num_scenes=30, direction="find").build()
    for sample in (source[index] for index in range(30)):
        (image,) = sample.images
        assert isinstance(image, SceneImage)
        turns = [turn.text.removeprefix("<image>\n") for turn in sample.turns]
        assert 1 <= len(turns) // 2 <= 4
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            words = question.removeprefix("<ref>the ").removesuffix("</ref>").removesuffix(" thing").split()
            fitting = [one for one in image.scene.items if set(words) <= {one.size, one.colour, one.shape}]
            (found,) = parse_boxes(answer)
            assert len(fitting) == 1
            assert iou(found.box, fitting[0].box) > 0.95


def test_what_is_in_a_box() -> None:
    source = WorldBoxes(num_scenes=10, direction="name").build()
    for sample in (source[index] for index in range(10)):
        (image,) = sample.images
        assert isinstance(image, SceneImage)
        truth = {f"{one.size} {one.colour} {one.shape}" for one in image.scene.items}
        assert all(turn.text in truth for turn in sample.turns if turn.role == "assistant")
        assert all("<ref>this</ref><box>(" in turn.text for turn in sample.turns if turn.role == "user")


def test_the_same_each_time_and_checked() -> None:
    assert WorldBoxes(num_scenes=3).build()[2] == WorldBoxes(num_scenes=3).build()[2]
    with pytest.raises(ValueError, match="1 question or more"):
        WorldBoxes(questions=0)
    items = grounding_items(5)
    assert [item.meta["metric"] for item in items] == ["box"] * 5
    assert {len(parse_boxes(item.meta["answers"][0])) for item in items} == {1}
