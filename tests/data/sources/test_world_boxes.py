"""Boxes of the exact world: answers that are the truth, phrases that fit one thing."""

import re

import pytest

from isthmus.data.boxes import parse_boxes
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world_boxes import WorldBoxes, boxed_items, grounding_items
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
    with pytest.raises(ValueError, match="1 to 100 thousandths"):
        WorldBoxes(step=0)
    items = grounding_items(5)
    assert [item.meta["metric"] for item in items] == ["box"] * 5
    assert {len(parse_boxes(item.meta["answers"][0])) for item in items} == {1}


def test_corners_are_rounded() -> None:
    fine, coarse = (WorldBoxes(num_scenes=30, direction="find", step=step).build() for step in (1, 50))
    for index in range(30):
        for exact, rounded in zip(fine[index].turns[1::2], coarse[index].turns[1::2], strict=True):
            numbers = [int(part) for part in re.findall(r"\d+", rounded.text)]
            assert all(number % 50 == 0 or number == 999 for number in numbers)
            for one, whole in zip(numbers, re.findall(r"\d+", exact.text), strict=True):
                assert abs(one - int(whole)) <= 26
            assert iou(parse_boxes(exact.text)[0].box, parse_boxes(rounded.text)[0].box) > 0.5


def test_what_is_in_a_box_is_asked_of_the_same_things() -> None:
    for found, boxed in zip(grounding_items(5), boxed_items(5), strict=True):
        (answer,) = boxed.meta["answers"]
        (image,) = boxed.images
        assert isinstance(image, SceneImage)
        (item,) = [one for one in image.scene.items if f"{one.size} {one.colour} {one.shape}" == answer]
        (exact,), (coarse,) = parse_boxes(found.meta["answers"][0]), parse_boxes(boxed.turns[0].text)
        assert iou(exact.box, item.box) > 0.95
        assert 0.5 < iou(coarse.box, item.box) < 1.0
