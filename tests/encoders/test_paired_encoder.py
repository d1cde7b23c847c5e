"""Two towers on the same views: each says what it says alone, and a connector reads them side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_towers import SIZES, save

from isthmus.cli.fields import with_fields
from isthmus.config import from_json, to_json
from isthmus.connectors import ChannelConcatConfig, MlpConfig
from isthmus.encoders import PairedEncoder, VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.features import Clip, Sound
from isthmus.measure import cost, training_memory
from isthmus.measure.fit import fits
from isthmus.model import TYPES, Model, VisionLanguageModel
from isthmus.recipes import RECIPES

GRIDS = ((2, 1), (1, 2))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairedEncoder:
    """CLIP at 24 px in patches of 8, SigLIP at 48 px in patches of 16: nine patches each."""
    root = tmp_path_factory.mktemp("paired")
    save("clip", root / "clip")
    save("siglip", root / "siglip")
    sizes: dict[str, Any] = SIZES | {"hidden_size": 12, "image_size": 48, "patch_size": 16}
    torch.manual_seed(4)
    transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)).save_pretrained(root / "siglip")
    first = VisionEncoder(name=str(root / "clip"), image_size=24, layers=(-1, -2))
    return PairedEncoder(first=first, second=VisionEncoder(name=str(root / "siglip"), image_size=48, layers=(-2, -1)))


def picture(wide: int, high: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_each_tower_says_what_it_says_alone(pair: PairedEncoder) -> None:
    made, image = pair.build(), picture(50, 31)
    ready = made.prepare(image)
    assert ready.pixels.shape == (1, 1, 1, 3 * 24**2 + 3 * 48**2)
    with torch.no_grad():
        both = made(ready.pixels)
        alone = [tower.build()(tower.build().prepare(image).pixels) for tower in (pair.first, pair.second)]
    assert both.grid == made.shape.grid == alone[0].grid
    wanted = (alone[0].tokens, *alone[0].levels, alone[1].tokens, *alone[1].levels)
    assert made.shape.level_widths == (16, 12, 12)
    for got, one in zip((both.tokens, *both.levels), wanted, strict=True):
        torch.testing.assert_close(got, one, atol=0.0, rtol=0.0)
    assert made.blank().shape == ready.pixels.shape
    assert pair.parameters() == pair.first.parameters() + pair.second.parameters()
    assert pair.flops() == pair.first.flops() + pair.second.flops()
    assert len({pair.fingerprint(), PairedEncoder(first=pair.first, second=pair.first).fingerprint()}) == 2


def test_frames_are_views_and_sounds_are_refused(pair: PairedEncoder) -> None:
    made, frames = pair.build(), (picture(20, 20), picture(20, 20, 1))
    assert len(made.prepare(Clip(frames=frames, times_s=(0.0, 1.0))).pixels) == 2
    with pytest.raises(ValueError, match="got a sound"):
        made.prepare(Sound(samples=np.zeros(9, dtype=np.float32), rate=9))
    with pytest.raises(ValueError, match=r"reads 1728 \+ 6912 numbers a view, but 5 came"):
        made(torch.zeros(1, 1, 1, 5))


def test_tiles_are_those_of_the_first(pair: PairedEncoder) -> None:
    tiled = replace(pair.first, tiles=AnyresTiles(grids=GRIDS), layers=(-1,))
    both = PairedEncoder(first=tiled, second=replace(pair.first, layers=(-3,)))
    made, image = both.build(), picture(60, 20)
    ready = made.prepare(image)
    assert (ready.tiles, ready.whole, len(ready.pixels)) == ((1, 1, 2), "first", 3)
    assert both.plan((60, 20)).views == range(3)
    assert both.most_views() == tiled.most_views() == 3
    with torch.no_grad():
        seen, alone = made(ready.pixels), replace(tiled, layers=(-3,)).build()
        torch.testing.assert_close(seen.levels[0], alone(alone.prepare(image).pixels).tokens)


def test_a_connector_reads_them_side_by_side(pair: PairedEncoder) -> None:
    model = Model(encoder=pair, connector=ChannelConcatConfig(depth=1))
    torch.manual_seed(0)
    made = VisionLanguageModel(model)
    assert made.encoder is not None
    with torch.no_grad():
        features = made.encoder(made.encoder.prepare(picture(30, 30)).pixels)
        joined = torch.cat([features.tokens, *features.levels], dim=-1)
        torch.testing.assert_close(made.connector(features).tokens, made.connector.project(joined))
    assert joined.shape[-1] == 16 + 16 + 12 + 12
    assert from_json(to_json(model), TYPES) == model
    with pytest.raises(ValueError, match="gives 4 layers, but MlpConfig reads one"):
        Model(encoder=pair, connector=MlpConfig()).connector.build(model.source(), model.target())


def test_it_goes_by_its_name() -> None:
    """The line of docs/connectors/channel-concat.md."""
    page = (Path(__file__).parents[2] / "docs" / "connectors" / "channel-concat.md").read_text(encoding="utf-8")
    line = page[page.index("isthmus train ") :].split("```")[0].replace("\\\n", " ").split()
    stage = with_fields(RECIPES[line[2]](), line[3:], command="train")
    encoder = stage.model.encoder
    assert isinstance(encoder, PairedEncoder)
    assert (encoder.first.layers, encoder.second.layers, encoder.second.final_norm) == ((-1,), (-2,), True)
    assert stage.model.connector == ChannelConcatConfig()
    assert stage.model.source().level_widths == (192,)


def test_costs_count_both(pair: PairedEncoder) -> None:
    model = Model(encoder=pair, connector=ChannelConcatConfig())
    bill = cost(model, train=("connector",))
    assert (bill.encoder.parameters, bill.encoder.flops) == (pair.parameters(), pair.flops())
    frozen, learning = (training_memory(model, train=train) for train in (("connector",), ("connector", "encoder")))
    assert learning.activations > frozen.activations
    half = next(fit for fit in fits(model, 2**30) if fit.precision == "bfloat16")
    whole = next(fit for fit in fits(model, 2**30) if fit.precision == "float32")
    assert half.memory.weights == whole.memory.weights - 2 * (bill.encoder.parameters + bill.llm.parameters)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("second", {"image_size": 64}, r"3 x 3 patches at 24 px and .* has 4 x 4 at 64 px.*equally many patches"),
        ("second", {"tiles": AnyresTiles(grids=GRIDS)}, r"tiles=OneView\(\) in the second"),
        ("second", {"fit": "pad"}, r"Set second\.fit='squash'"),
        ("second", {"precision": "bfloat16"}, r"Set second\.precision='float32'"),
        ("first", {"tiles": AnyresTiles(grids=GRIDS)}, "Use one image_size for both"),
    ],
)
def test_what_does_not_fit_is_refused(pair: PairedEncoder, part: str, changes: dict[str, Any], said: str) -> None:
    wrong = replace(pair, **{part: replace(getattr(pair, part), **changes)})
    with pytest.raises(ValueError, match=said):
        wrong.shape()


def test_a_class_token_of_the_second_is_refused(pair: PairedEncoder) -> None:
    with pytest.raises(ValueError, match="class_token=False"):
        PairedEncoder(first=pair.first, second=replace(pair.first, class_token=True)).shape()
    assert PairedEncoder(first=replace(pair.first, class_token=True), second=pair.second).shape().prefix == 1
