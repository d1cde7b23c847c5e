"""k fixed augmented views of an image: random resized crops, drawn from the image's key and the view's number alone.

Crops cover 50% to 100% of the area with sides between 3:4 and 4:3 (BLIP-2's pre-training crop). There is no flip:
answers that depend on sides would turn wrong.
"""

import hashlib
import math
import random

from PIL import Image


def view_box(size: tuple[int, int], key: str, view: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of the crop that is view number `view` of the image with this key."""
    width, height = size
    seed = hashlib.blake2b(f"{key}|{view}".encode(), digest_size=8).digest()
    draw = random.Random(int.from_bytes(seed, "big"))
    for _ in range(10):
        area = width * height * draw.uniform(0.5, 1.0)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height


def crop_view(image: Image.Image, key: str, view: int) -> Image.Image:
    """The crop that is view number `view` of this image."""
    return image.crop(view_box(image.size, key, view))
