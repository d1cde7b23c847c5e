"""Studies of detail between the bundled eye and speaker: which way to more pixels reads smaller things.

What the eye shows of one thing alone in a view of 96 px, read by a linear probe, is in `docs/detail.md`
(`python benchmarks/eye_detail.py`).
"""

from dataclasses import replace

from isthmus.compare.study import Arm, Study
from isthmus.connectors.arrange import Anyres, DeepStack
from isthmus.connectors.average_pool import AveragePoolConfig
from isthmus.connectors.base import ConnectorConfig
from isthmus.connectors.maps import Side
from isthmus.data.sources import SmallThings, Source
from isthmus.data.sources.small_things import spanning
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles, SubImages, TilingConfig
from isthmus.encoders.vision import VisionEncoder
from isthmus.recipes import quickstart
from isthmus.train.stage import Stage

SEEDS = (1, 2, 3, 4, 5)
SCENES = 1_280
STEPS = 360
READING = 600
"""Steps of 16 pictures each: after 300 the first arms begin to tell digits apart."""
ASKED = ("shape", "digit")
"""Of the four things and the number in a scene: four questions of shape for one of reading."""
CROPS = AnyresTiles(grids=((2, 2),))
"""The whole image and its four quarters, each in a view of its own."""
MAP: Side = (10, 8)
"""80 tokens of one view: as many as five views have with 4 x 4 each."""


def stage() -> Stage:
    """The quickstart's stage over pictures of 192 px with a number and four things of known heights, seen whole."""
    base = quickstart.stage()
    return replace(
        base,
        name="detail",
        model=replace(base.model, connector=AveragePoolConfig(side=MAP)),
        data=(Source(of=SmallThings(split="train", num_scenes=SCENES, families=ASKED, questions=5)),),
        validation=(Source(of=SmallThings(split="val", num_scenes=32, families=ASKED, questions=5)),),
        steps=STEPS,
        precision="bf16",
        save_every=STEPS,
        validate_every=STEPS,
    )


def tiled(tiles: TilingConfig) -> tuple[str, VisionEncoder]:
    """The change that puts a tiling before the stage's encoder."""
    encoder = stage().model.encoder
    assert isinstance(encoder, VisionEncoder)
    return "model.encoder", replace(encoder, tiles=tiles)


def pooled(side: Side) -> tuple[str, ConnectorConfig]:
    """The change that gives every view so many tokens."""
    return "model.connector", AveragePoolConfig(side=side)


def resolution() -> Study:
    """Digits and shapes by height: the whole picture, anyres, dynamic tiles and DeepStack at 80 visual tokens.

    Pictures are 192 px, the encoder's views 96 px. One view gives 10 x 8 tokens; five views (the whole and four
    quarters) give 4 x 4 each; DeepStack adds four groups of 10 x 8 to the whole's 10 x 8. The row ends of anyres are
    left out, so that all four count exactly 80. Every picture has a digit and four things, each 5 to 20 px high where
    the picture is 96 px, twice that in a quarter.

    Why digits and not words: linear probes of the frozen eye tell ten digits apart by 46% at 10 px, 56% at 16 px and
    61% at 32 px of its view, eight shapes by 23% at 4 px, 31% at 6 px and 64% at 10 px (`benchmarks/eye_detail.py`,
    560 pictures each), but 364 words hardly at all. So an enlarged digit or shape is there to be read.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985; the counts: here, for equal visual tokens
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        base.save_every, base.validate_every: here
        arms: anyres: LLaVA-NeXT; dynamic tiles and thumbnail: InternVL 1.5, arXiv:2404.16821, section 3.2; DeepStack:
            arXiv:2406.04334, section 3.1, four dilated groups before layers 1 to 4
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    return Study(
        name="resolution",
        base=stage(),
        arms=(
            Arm(name="whole"),
            Arm(name="anyres", replace=(tiled(CROPS), pooled(4), ("model.arrange", Anyres(newline=False)))),
            Arm(name="dynamic tiles", replace=(tiled(DynamicTiles(max_tiles=4)), pooled(4))),
            Arm(name="DeepStack", replace=(tiled(CROPS), ("model.arrange", DeepStack()))),
        ),
        seeds=SEEDS,
        tune_rates=(5e-3, 1.5e-2),
        tune_seeds=(101,),
        tune_fraction=0.4,
        tasks=("detail/digit", "detail/shape"),
        headline=("detail/digit", "detail/shape"),
        items_per_task=400,
        control_items=80,
        watch_items=80,
    )


def digits() -> Study:
    """Digits alone by height, with enough of them to learn to read: the arms of resolution.

    In `resolution` one question in five is about a digit, and no arm learns to read. Here every picture is asked for
    its number and for nothing else, and there are three times as many pictures.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985; the counts: here, for equal visual tokens
        base.data, base.validation, base.batch_size, base.steps, base.precision: here: what reads a digit at all
        base.save_every, base.validate_every: here
        arms: as in `resolution`
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    read = SmallThings(num_scenes=4_000, families=("digit",), questions=1)
    return replace(
        resolution(),
        name="resolution/digits",
        base=replace(
            stage(),
            data=(Source(of=read),),
            validation=(Source(of=replace(read, split="val", num_scenes=64)),),
            batch_size=16,
            steps=READING,
            save_every=READING,
            validate_every=READING,
        ),
        tune_fraction=0.5,
        tasks=("detail/digit",),
        headline=("detail/digit",),
    )


def whole_view() -> Study:
    """Tiles with and without the whole picture, on what lies in several of them.

    Three large things on 192 px, cut in four tiles: where is one, which shape has one that the cut goes through, does
    one lie to a side of another in another tile. With 80 tokens for all: tiles of 4 x 4 after the whole, tiles of
    5 x 4 alone, the whole alone; and tiles of 4 x 4 alone, with 64.

    Sources (here = chosen for this study):
        base: the recipe `quickstart`
        base.model.connector: DeCo's pooling, arXiv:2405.20985; the counts: here, for equal visual tokens
        base.data, base.validation, base.steps, base.precision: here: what about half an hour on two cores allows
        arms: LLaVA-1.5-HD, arXiv:2310.03744, table 2 adds the whole image to tiles; as many tokens without it: here
        name, seeds, tune_rates, tune_seeds, tune_fraction, text_only: here
        tasks, headline, items_per_task, headline_items, control_items, watch_items, margin: here
    """
    families = ("place", "shape", "side", "colour")
    alone = tiled(SubImages(whole="none"))
    base = replace(
        stage(),
        data=(Source(of=spanning("train", SCENES, families=families)),),
        validation=(Source(of=spanning("val", 32, families=families)),),
    )
    return replace(
        resolution(),
        name="tiles/whole",
        base=base,
        arms=(
            Arm(name="tiles and whole", replace=(tiled(SubImages(whole="first")), pooled(4))),
            Arm(name="tiles, as many tokens", replace=(alone, pooled((5, 4)))),
            Arm(name="tiles", replace=(alone, pooled(4))),
            Arm(name="whole"),
        ),
        tasks=("detail/place", "detail/cut-shape", "detail/side"),
        headline=("detail/place", "detail/cut-shape", "detail/side"),
        items_per_task=300,
        control_items=50,
        watch_items=60,
    )
