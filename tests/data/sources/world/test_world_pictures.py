"""The exact world's pictures show what the scene says, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.data.sources.world import RGB, Scene, WorldStyle, make_scene, render
from isthmus.data.sources.world.charts import bar_boxes, line_points

INSIDE = {"triangle": (0.5, 0.65), "ring": (0.135, 0.5)}
"""A point that the shape covers, in its box; the centre for the others."""


def _pixels(scene: Scene, size: int) -> np.ndarray:
    return np.asarray(render(scene, size)).astype(int)


@pytest.mark.parametrize("size", [96, 224])
def test_an_item_has_its_colour_and_a_ring_has_its_hole(size: int) -> None:
    for seed in range(60):
        scene = make_scene(seed, "train", WorldStyle(writing=0.2))
        pixels = _pixels(scene, size)
        for item in scene.items:
            x0, y0, x1, y1 = item.box
            across, down = INSIDE.get(item.shape, (0.5, 0.5))
            shown = pixels[int((y0 + down * (y1 - y0)) * size), int((x0 + across * (x1 - x0)) * size)]
            assert np.abs(shown - item.rgb).max() <= 3, (seed, item)
            distances = {name: np.abs(shown - np.array(rgb)).sum() for name, rgb in RGB.items()}
            assert min(distances, key=distances.__getitem__) == item.colour
            if item.shape == "ring":
                hole = pixels[int((y0 + y1) / 2 * size), int((x0 + x1) / 2 * size)]
                assert np.abs(hole - item.rgb).max() > 40


def test_shapes_differ_in_the_pixels_and_fill_their_box() -> None:
    masks: dict[str, np.ndarray] = {}
    for seed in range(400):
        scene = make_scene(seed, "train", WorldStyle(items=(1, 3), writing=0.0, chart=0.0, distractors=(0, 0)))
        for item in scene.items:
            if item.size == "large" and item.shape not in masks and scene.background.kind == "flat":
                x0, y0 = (round(edge * 480) for edge in item.box[:2])
                cut = _pixels(scene, 480)[y0 : y0 + 140, x0 : x0 + 140]
                masks[item.shape] = np.abs(cut - item.rgb).max(-1) < 8
                rows, columns = masks[item.shape].any(1).sum(), masks[item.shape].any(0).sum()
                assert rows > 125 or item.shape == "cross"
                assert columns > 105
    assert len(masks) == 8
    names = sorted(masks)
    for first in names:
        for second in names[: names.index(first)]:
            assert (masks[first] ^ masks[second]).mean() > 0.08, (first, second)


@pytest.mark.parametrize("size", [32, 64, 97, 96, 336, 800])
def test_any_size_draws_the_same_picture(size: int) -> None:
    scene = make_scene(12, "train", WorldStyle(items=(6, 6), writing=0.0, chart=0.0, distractors=(0, 0)))
    picture = render(scene, size)
    assert picture.mode == "RGB"
    assert picture.size == (size, size)
    small = np.asarray(picture.resize((16, 16), 4)).astype(int)
    reference = np.asarray(render(scene, 480).resize((16, 16), 4)).astype(int)
    assert np.abs(small - reference).mean() < 4


def test_a_picture_is_never_smaller_than_its_content_can_bear() -> None:
    with pytest.raises(ValueError, match="32 pixels or more"):
        render(make_scene(0, "train"), 31)


@pytest.mark.parametrize("size", [96, 384])
@pytest.mark.parametrize("height", [5.0, 9.0, 16.0])
def test_digits_are_as_high_as_asked_for(size: int, height: float) -> None:
    style = WorldStyle(items=(0, 0), writing=1.0, numbers=1.0, chart=0.0, distractors=(0, 0), glyph_heights=(height,))
    fonts = set()
    for seed in range(120):
        scene = make_scene(seed, "train", style)
        if scene.background.kind != "flat" or len(scene.writings) != 1:
            continue
        (writing,) = scene.writings
        assert writing.glyph_height == pytest.approx(height / 96)
        contrast = np.abs(_pixels(scene, size) - np.array(scene.background.first)).max(-1)
        rows, columns = (np.flatnonzero((contrast > 0.4 * contrast.max()).any(axis)) for axis in (1, 0))
        slack = 1.2 if size == 96 else 2.5 if height < 10 else 4.0
        assert rows[-1] - rows[0] + 1 == pytest.approx(height * size / 96, abs=slack), (seed, writing)
        x0, y0, x1, y1 = (edge * size for edge in writing.box)
        assert rows[0] >= y0 - 1.5
        assert rows[-1] <= y1 + 1.5
        assert columns[0] >= x0 - 1.5
        assert columns[-1] <= x1 + 1.5 + 0.02 * (x1 - x0)
        fonts.add(writing.font)
    assert len(fonts) >= 3


def test_charts_show_their_values() -> None:
    seen = {"bar": 0, "line": 0}
    size = 200
    for seed in range(60):
        scene = make_scene(seed, "train", WorldStyle(chart=1.0, items=(0, 0)))
        chart = scene.chart
        assert chart is not None
        pixels = _pixels(scene, size)
        seen[chart.kind] += 1
        if chart.kind == "line":
            for x, y in line_points(chart)[1:-1]:
                near = pixels[int(y * size) - 1 : int(y * size) + 2, int(x * size) - 1 : int(x * size) + 2]
                assert np.abs(near - RGB[chart.labels[0]]).max(-1).min() < 12
            continue
        boxes = bar_boxes(chart)
        heights = [box[3] - box[1] for box in boxes]
        for label, value, box, height in zip(chart.labels, chart.values, boxes, heights, strict=True):
            middle = pixels[int((box[1] + 0.5 * height) * size), int((box[0] + box[2]) / 2 * size)]
            assert np.abs(middle - RGB[label]).max() < 8
            column = np.abs(pixels[:, int((box[0] + 0.3 * (box[2] - box[0])) * size)] - RGB[label]).max(-1) < 40
            assert column.sum() == pytest.approx(height * size, abs=3.5)
            assert height / value == pytest.approx(heights[0] / chart.values[0])
    assert min(seen.values()) > 15
