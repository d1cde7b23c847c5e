"""Bar and line charts: where every bar stands, and how the chart is drawn."""

from __future__ import annotations

from PIL import Image, ImageDraw

from isthmus.data.sources.world.fonts import load_font
from isthmus.data.sources.world.scene import RGB, Box, Chart

LEFT, RIGHT, TOP, BOTTOM = 0.09, 0.03, 0.12, 0.05
"""Margins between the chart's box and its axes, as fractions of the canvas side."""
MOST = 9
"""The value at the top of every value axis, which starts at 0 and has a tick at each whole number."""
_PAPER, _INK, _RULE = (252, 252, 250), (40, 40, 40), (214, 214, 214)


def _axes(chart: Chart) -> Box:
    x0, y0, x1, y1 = chart.box
    return (x0 + LEFT, y0 + TOP, x1 - RIGHT, y1 - BOTTOM)


def _height(value: int, axes: Box) -> float:
    """The y of a value."""
    return axes[3] - (axes[3] - axes[1]) * value / MOST


def bar_boxes(chart: Chart) -> tuple[Box, ...]:
    """The box of every bar, left to right, in fractions of the canvas side."""
    axes = _axes(chart)
    step = (axes[2] - axes[0]) / len(chart.labels)
    return tuple(
        (axes[0] + (place + 0.18) * step, _height(value, axes), axes[0] + (place + 0.82) * step, axes[3])
        for place, value in enumerate(chart.values)
    )


def line_points(chart: Chart) -> tuple[tuple[float, float], ...]:
    """The corners of the line, left to right, in fractions of the canvas side."""
    axes = _axes(chart)
    step = (axes[2] - axes[0]) / len(chart.values)
    return tuple((axes[0] + (place + 0.5) * step, _height(value, axes)) for place, value in enumerate(chart.values))


def paint_chart(canvas: Image.Image, chart: Chart) -> None:
    """Draw a chart onto the canvas, on its own paper."""
    size = canvas.width
    over = 3 if size <= 400 else 2
    x0, y0 = int(chart.box[0] * size), int(chart.box[1] * size)
    x1, y1 = int(chart.box[2] * size), int(chart.box[3] * size)
    picture = Image.new("RGB", ((x1 - x0) * over, (y1 - y0) * over), _PAPER)
    draw = ImageDraw.Draw(picture)
    scale = size * over
    rule = max(1, round(0.006 * scale))

    def at(x: float, y: float) -> tuple[float, float]:
        return (x * scale - x0 * over, y * scale - y0 * over)

    axes = _axes(chart)
    for value in range(1, MOST + 1):
        y = _height(value, axes)
        if value % 3 == 0:
            draw.line((at(axes[0], y), at(axes[2], y)), fill=_RULE, width=rule)
        draw.line((at(axes[0] - (0.03 if value % 3 == 0 else 0.018), y), at(axes[0], y)), fill=_INK, width=rule)
    if chart.kind == "bar":
        for label, value, box in zip(chart.labels, chart.values, bar_boxes(chart), strict=True):
            draw.rectangle((at(box[0], box[1]), at(box[2], box[3])), fill=RGB[label])
            if chart.numbered:
                font = load_font("sans bold", 0.075 * scale)
                draw.text(at((box[0] + box[2]) / 2, box[1] - 0.015), str(value), font=font, fill=_INK, anchor="ms")
    else:
        points = [at(x, y) for x, y in line_points(chart)]
        draw.line(points, fill=RGB[chart.labels[0]], width=round(0.028 * scale), joint="curve")
        radius = 0.014 * scale
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=RGB[chart.labels[0]])
    draw.line((at(axes[0], axes[1] - 0.02), at(axes[0], axes[3]), at(axes[2], axes[3])), fill=_INK, width=2 * rule)
    canvas.paste(picture.reduce(over), (x0, y0))
