"""Tilings: an image of any size becomes views of one size. A new one is one file and two lines here."""

from isthmus.encoders.tiles.anyres import DEEPSTACK_GRIDS as DEEPSTACK_GRIDS
from isthmus.encoders.tiles.anyres import LLAVA15_HD_GRIDS as LLAVA15_HD_GRIDS
from isthmus.encoders.tiles.anyres import LLAVA_NEXT_GRIDS as LLAVA_NEXT_GRIDS
from isthmus.encoders.tiles.anyres import ONEVISION_GRIDS as ONEVISION_GRIDS
from isthmus.encoders.tiles.anyres import AnyresTiles as AnyresTiles
from isthmus.encoders.tiles.base import Cut as Cut
from isthmus.encoders.tiles.base import TilingConfig as TilingConfig
from isthmus.encoders.tiles.base import make_views as make_views
from isthmus.encoders.tiles.dynamic import DynamicTiles as DynamicTiles
from isthmus.encoders.tiles.finer import FinerTiles as FinerTiles
from isthmus.encoders.tiles.one_view import OneView as OneView
from isthmus.encoders.tiles.sub_images import SubImages as SubImages
from isthmus.encoders.tiles.tokenpacker_hd import TokenPackerTiles as TokenPackerTiles

TILINGS: dict[str, type[TilingConfig]] = {
    "one-view": OneView,
    "anyres": AnyresTiles,
    "dynamic": DynamicTiles,
    "sub-images": SubImages,
    "finer": FinerTiles,
    "tokenpacker-hd": TokenPackerTiles,
}
"""Every tiling, by name."""
