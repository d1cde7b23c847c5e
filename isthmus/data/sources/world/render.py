"""A scene as a picture of any size."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from isthmus.data.sources.world.backgrounds import is_dark, paint_background
from isthmus.data.sources.world.charts import paint_chart
from isthmus.data.sources.world.fonts import load_font
from isthmus.data.sources.world.scene import Box, Distractor, Item, Rgb, Scene, Writing
from isthmus.data.sources.world.shapes import draw_shape

SMALLEST = 32


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels, with smooth edges.

    Raises:
        ValueError: a side under 32 pixels.
    """
    if size < SMALLEST:
        raise ValueError(f"A scene is drawn at {SMALLEST} pixels or more, got size={size}.")
    canvas = paint_background(scene.background, size)
    for distractor in scene.distractors:
        _paint_distractor(canvas, distractor)
    if scene.chart is not None:
        paint_chart(canvas, scene.chart)
    for item in scene.items:
        _paint_item(canvas, item)
    for writing in scene.writings:
        _paint_writing(canvas, writing, on_dark=is_dark(scene.background), paper=scene.background.first)
    return canvas


def _frame(box: Box, size: int) -> tuple[tuple[int, int, int, int], int, Box]:
    """The whole pixels around a box, how many times finer its mask is drawn, and the box inside that mask."""
    over = 4 if size <= 400 else 2
    x0, y0 = math.floor(box[0] * size), math.floor(box[1] * size)
    x1, y1 = math.ceil(box[2] * size), math.ceil(box[3] * size)
    inner = (
        (box[0] * size - x0) * over,
        (box[1] * size - y0) * over,
        (box[2] * size - x0) * over,
        (box[3] * size - y0) * over,
    )
    return (x0, y0, x1, y1), over, inner


def _paint_item(canvas: Image.Image, item: Item) -> None:
    (x0, y0, x1, y1), over, inner = _frame(item.box, canvas.width)
    mask = Image.new("L", ((x1 - x0) * over, (y1 - y0) * over))
    draw_shape(ImageDraw.Draw(mask), item.shape, inner)
    canvas.paste(item.rgb, (x0, y0), mask.reduce(over))


def _paint_distractor(canvas: Image.Image, distractor: Distractor) -> None:
    (x0, y0, x1, y1), over, (left, top, right, bottom) = _frame(distractor.box, canvas.width)
    mask = Image.new("L", ((x1 - x0) * over, (y1 - y0) * over))
    draw = ImageDraw.Draw(mask)
    if distractor.kind == "dot":
        draw.ellipse((left, top, right, bottom), fill=255)
    else:
        ends = (left, top, right, bottom) if distractor.falling else (left, bottom, right, top)
        draw.line(ends, fill=255, width=max(1, round(0.012 * canvas.width * over)))
    canvas.paste((distractor.grey,) * 3, (x0, y0), mask.reduce(over))


def _paint_writing(canvas: Image.Image, writing: Writing, *, on_dark: bool, paper: Rgb) -> None:
    size = canvas.width
    (x0, y0, x1, y1), over, (left, top, _, _) = _frame(writing.box, size)
    if writing.plate:
        margin = max(1, round(0.012 * size))
        canvas.paste(paper, (max(0, x0 - margin), max(0, y0 - margin), min(size, x1 + margin), min(size, y1 + margin)))
    font = load_font(writing.font, writing.glyph_height * size * over)
    ink_left, ink_top, _, _ = font.getbbox(writing.text, anchor="ls")
    mask = Image.new("L", ((x1 - x0 + 1) * over, (y1 - y0 + 1) * over))
    ImageDraw.Draw(mask).text((left - ink_left, top - ink_top), writing.text, font=font, fill=255, anchor="ls")
    canvas.paste((244, 244, 240) if on_dark else (16, 16, 20), (x0, y0), mask.reduce(over))
