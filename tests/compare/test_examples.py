"""What the report shows of boxes: the picture with the right one and every arm's."""

from isthmus.compare.examples import _picture
from isthmus.data.sources.world_boxes import grounding_items


def test_boxes_are_drawn_on_the_picture() -> None:
    (item,) = grounding_items(1)
    bare = item.images[0].load()
    drawn = _picture(item, [("mlp", "<box>(0,0),(999,999)</box>", 0.0), ("q-former", "nothing", 0.0)])
    assert drawn.width == 4 * bare.width
    assert drawn.getpixel((0, drawn.height - 1)) == (0xDC, 0x26, 0x26), "the first arm's box is in the second colour"
    counted = _picture(item.__class__(id="n", turns=item.turns, images=item.images, meta={"metric": "exact"}), [])
    assert counted.size == bare.size
