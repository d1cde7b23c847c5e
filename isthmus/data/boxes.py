"""Boxes in text, as Qwen-VL writes them: `<ref>the red circle</ref><box>(120,340),(298,512)</box>`, and on pictures.

Source: Qwen-VL (arXiv:2308.12966), section 2.2. Checked against: QwenLM/Qwen-VL `eval_mm/evaluate_grounding.py` for how
an answer is read. Corners are whole numbers in [0, 1000) of the picture's width and height, the top left
one first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of width and height, y downwards."""

STEPS = 1_000
COLOURS = ("#16a34a", "#dc2626", "#2563eb", "#d97706", "#7c3aed", "#0891b2", "#db2777")
_NUMBER = r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*"
_FOUND = re.compile(rf"<ref>(.*?)</ref>|\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)", re.DOTALL)


@dataclass(frozen=True)
class NamedBox:
    """A box and the phrase before it; several boxes may share a phrase, and a box may have none ("")."""

    box: Box
    name: str = ""


def format_box(box: Box) -> str:
    """`<box>(x1,y1),(x2,y2)</box>`.

    Raises:
        ValueError: corners that are not fractions with the top left one first.
    """
    left, top, right, bottom = box
    if not (0.0 <= left <= right <= 1.0 and 0.0 <= top <= bottom <= 1.0):
        raise ValueError(f"A box is (left, top, right, bottom) in fractions of the picture, got {box}.")
    x1, y1, x2, y2 = (min(STEPS - 1, int(side * STEPS)) for side in box)
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def format_boxes(boxes: Sequence[NamedBox]) -> str:
    """Phrases before their boxes; one phrase stands once before all boxes that follow one another with it."""
    text, last = "", ""
    for one in boxes:
        if one.name and one.name != last:
            text += f"<ref>{one.name}</ref>"
        text += format_box(one.box)
        last = one.name
    return text


def parse_boxes(text: str) -> list[NamedBox]:
    """Every `(x1,y1),(x2,y2)` of a text, with the phrase that its last `<ref>` holds.

    Marks may be missing, as in answers that were cut short. Numbers are read as parts of 999, as the reference does;
    what lies outside is cut off, and a box whose corners are in the wrong order is left out.
    """
    found: list[NamedBox] = []
    name = ""
    for match in _FOUND.finditer(text):
        if match[1] is not None:
            name = " ".join(match[1].split())
            continue
        left, top, right, bottom = (min(1.0, float(part) / (STEPS - 1)) for part in match.groups()[1:])
        if left <= right and top <= bottom:
            found.append(NamedBox((left, top, right, bottom), name))
    return found


def draw_boxes(picture: Image.Image, boxes: Sequence[NamedBox]) -> Image.Image:
    """The picture with every box in a colour of its own and its phrase at its corner; small pictures are enlarged."""
    scale = max(1, -(-384 // max(picture.size)))
    drawn = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(drawn)
    thick = max(2, max(drawn.size) // 200)
    for place, one in enumerate(boxes):
        colour = COLOURS[place % len(COLOURS)]
        left, top, right, bottom = (
            round(side * (length - 1)) for side, length in zip(one.box, drawn.size * 2, strict=True)
        )
        pen.rectangle((left, top, right, bottom), outline=colour, width=thick)
        if one.name:
            wide, high = pen.textbbox((0, 0), one.name)[2:]
            corner = (min(left, max(0, drawn.width - wide - 4)), max(0, top - high - 4))
            pen.rectangle((*corner, corner[0] + wide + 4, corner[1] + high + 4), fill=colour)
            pen.text((corner[0] + 2, corner[1] + 1), one.name, fill="white")
    return drawn
