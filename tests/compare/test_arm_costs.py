"""What an arm costs depends on the pictures it gets, once its encoder cuts them into tiles."""

from dataclasses import replace

from isthmus.compare.costs import arm_cost, picture_size
from isthmus.data.sources import Source, WorldCaptions
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import SubImages
from isthmus.recipes.quickstart import stage as quickstart


def test_one_view_costs_the_same_for_every_picture() -> None:
    assert picture_size(quickstart()) is None


def test_tiles_are_counted_for_the_pictures_of_the_data() -> None:
    plain = replace(quickstart(), data=(Source(of=WorldCaptions(split="train", num_scenes=2)),))
    assert isinstance(plain.model.encoder, VisionEncoder)
    tiled = replace(plain, model=replace(plain.model, encoder=replace(plain.model.encoder, tiles=SubImages())))
    image = plain.data[0].of.build()[0].images[0]
    assert picture_size(tiled) == image.load().size
    assert arm_cost(tiled).visual_tokens == 5 * arm_cost(plain).visual_tokens
