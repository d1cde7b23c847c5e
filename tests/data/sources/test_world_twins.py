"""Twins: pairs of scenes with exchanged attributes, of one split, that stay together through every order."""

from collections import Counter
from dataclasses import replace

import pytest

from isthmus.compare.blind import Blind
from isthmus.data.mixture import Mixture
from isthmus.data.sources import Formatted, Source, Textbook, WorldCaptions, WorldStyle, WorldTwins
from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.world import RGB, Scene, bucket
from isthmus.data.sources.world.layout import SIDES
from isthmus.recipes.blip2_tiny import tiny_contrast
from isthmus.train.remember import Remembered

TWINS = WorldTwins(num_scenes=40)


def scene_of(index: int, twins: WorldTwins = TWINS) -> Scene:
    image = twins.build()[index].images[0]
    assert isinstance(image, SceneImage)
    return image.scene


@pytest.mark.parametrize("pair", range(20))
def test_two_things_of_a_pair_exchanged_one_attribute_and_nothing_else(pair: int) -> None:
    first, second = scene_of(2 * pair), scene_of(2 * pair + 1)
    assert replace(first, items=()) == replace(second, items=())
    changed = [(one, other) for one, other in zip(first.items, second.items, strict=True) if one != other]
    assert len(changed) == 2
    (a, b), (c, d) = changed
    names = [name for name in ("colour", "shape", "size", "cell") if getattr(a, name) != getattr(b, name)]
    assert len(names) == 1
    for name in ("colour", "shape", "size"):
        exchanged = (getattr(c, name), getattr(a, name)) if name in names else (getattr(a, name), getattr(c, name))
        assert (getattr(b, name), getattr(d, name)) == exchanged


def test_pictures_show_what_was_exchanged() -> None:
    for index in range(40):
        for item in scene_of(index).items:
            low, high = SIDES[item.size]
            assert low <= item.box[2] - item.box[0] <= high
            assert all(
                0.89 * base - 1 <= a <= 1.11 * base + 1 for a, base in zip(item.rgb, RGB[item.colour], strict=True)
            )
    first, second = (TWINS.build()[index].images[0].load() for index in (0, 1))
    assert first.size == (96, 96)
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize("pair", range(20))
def test_their_descriptions_hold_the_same_words_in_another_order(pair: int) -> None:
    samples = TWINS.build()
    one, other = samples[2 * pair].turns[1].text, samples[2 * pair + 1].turns[1].text
    assert one != other
    # "a" and "an" follow the word after them.
    words = [
        Counter(word for word in text.lower().replace(",", " ").replace(".", " ").split() if word not in ("a", "an"))
        for text in (one, other)
    ]
    assert words[0] == words[1]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_both_belong_to_the_split(split: str) -> None:
    twins = replace(TWINS, split=split)
    assert {bucket(scene_of(index, twins).key()) for index in range(40)} == {split}


@pytest.mark.parametrize(
    "of", [TWINS, Remembered(of=TWINS), Blind(of=TWINS), Formatted(of=TWINS)], ids=lambda of: type(of).__name__
)
def test_pairs_stand_in_one_batch_in_every_epoch(of: WorldTwins) -> None:
    figures = Source(of=Textbook(task="describe", split="val"), weight=0.5, whole_batches=True)
    mixture = Mixture((Source(of=of, weight=0.5, whole_batches=True), figures), seed=3, block=8)
    seen: Counter[int] = Counter()
    for first in range(0, 3 * len(mixture), 8):
        places = [mixture.place(position) for position in range(first, first + 8)]
        numbers = [index for source, index in places if source == 0]
        assert {number ^ 1 for number in numbers} == set(numbers)
        seen.update(numbers)
    assert set(seen) == set(range(40))
    orders = [[mixture.place(p)[1] for p in range(start, len(mixture), 8)] for start in (0, 1)]
    assert orders[0] != orders[1]


def test_other_sources_keep_the_order_that_they_had() -> None:
    plain = Mixture((Source(of=WorldCaptions(num_scenes=9)),), seed=5)
    assert [plain.place(position)[1] for position in range(9)] == [0, 2, 1, 7, 6, 3, 4, 5, 8]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_scenes": 5}, "must be even, got 5"),
        ({"style": WorldStyle(items=(1, 4))}, r"begin at 2 or more, got \(1, 4\)"),
        ({"split": "test_combos"}, "no split test_combos"),
    ],
)
def test_what_offers_no_pairs_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WorldTwins(**wrong)  # type: ignore[arg-type]


def test_a_stage_whose_batches_would_part_pairs_is_refused() -> None:
    stage = tiny_contrast()
    with pytest.raises(ValueError, match=r"batch_size=63 would part\. Set one that 2 divides"):
        replace(stage, batch_size=63)
    with pytest.raises(ValueError, match="Set whole_batches=True for all sources"):
        replace(stage, data=tuple(replace(source, whole_batches=False) for source in stage.data))
    replace(stage, data=(Source(of=TWINS),))
