"""Boxes in Qwen-VL's format, in and out, and drawn."""

import pytest
from PIL import Image

from isthmus.data.boxes import NamedBox, draw_boxes, format_box, format_boxes, parse_boxes


def test_written_as_qwen_vl_does() -> None:
    assert format_box((0.1204, 0.34, 0.5, 1.0)) == "<box>(120,340),(500,999)</box>"
    boxes = [
        NamedBox((0.0, 0.0, 0.5, 0.5), "a cat"),
        NamedBox((0.5, 0.5, 1.0, 1.0), "a cat"),
        NamedBox((0.0, 0.0, 1.0, 1.0)),
    ]
    assert format_boxes(boxes) == (
        "<ref>a cat</ref><box>(0,0),(500,500)</box><box>(500,500),(999,999)</box><box>(0,0),(999,999)</box>"
    )


@pytest.mark.parametrize("box", [(0.5, 0.0, 0.4, 1.0), (0.0, 0.0, 1.1, 1.0), (-0.1, 0.0, 0.5, 0.5)])
def test_what_is_no_box_is_not_written(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="in fractions of the picture"):
        format_box(box)


def test_read_back() -> None:
    said = "<ref>a  red\nstar</ref><box>(0,0),(999,999)</box> and <ref>two</ref><box>(1,2),(3,4)</box>(5, 6), (7, 8)"
    found = parse_boxes(said)
    assert [one.name for one in found] == ["a red star", "two", "two"]
    assert found[0].box == (0.0, 0.0, 1.0, 1.0)
    assert found[2].box == (5 / 999, 6 / 999, 7 / 999, 8 / 999)


@pytest.mark.parametrize(
    "text", ["", "a cat", "<box>(1,2),(3", "<box>(9,9),(1,1)</box>", "(a,b),(c,d)", "<ref>x</ref>"]
)
def test_what_holds_no_box(text: str) -> None:
    assert parse_boxes(text) == []


def test_numbers_out_of_range_are_cut_off() -> None:
    assert parse_boxes("(0,0),(5000,1000)")[0].box == (0.0, 0.0, 1.0, 1.0)


def test_a_box_comes_back_within_a_step() -> None:
    box = (0.123456, 0.2, 0.777777, 0.9999)
    (found,) = parse_boxes(format_box(box))
    assert found.box == pytest.approx(box, abs=1.1e-3)


def test_drawn_on_the_picture() -> None:
    white = Image.new("RGB", (400, 200), "white")
    drawn = draw_boxes(white, [NamedBox((0.25, 0.25, 0.75, 0.75), "a")])
    assert drawn.size == (400, 200)
    assert drawn.getpixel((100, 50)) == (0x16, 0xA3, 0x4A)
    assert drawn.getpixel((200, 100)) == (255, 255, 255)
    assert draw_boxes(Image.new("L", (32, 16)), []).size == (384, 192)
