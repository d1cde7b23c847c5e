"""Images of any size in training and in answers: every tiling with an arrangement, batch equal to single, stages."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_stage import COLOURS, tiny_stage

from isthmus.connectors.arrange import Anyres, ArrangementConfig, Concatenate, DeepStack, Separated
from isthmus.data.sample import IMAGE_MARK, Sample, Turn
from isthmus.data.sources.base import Dataset, Source, SourceConfig
from isthmus.encoders import TilingConfig, VisionEncoder
from isthmus.encoders.tiles import (
    LLAVA15_HD_GRIDS,
    AnyresTiles,
    DynamicTiles,
    OneView,
    SubImages,
    TokenPackerTiles,
)
from isthmus.measure import cost
from isthmus.model import Model, VisionLanguageModel
from isthmus.train.loop import train
from isthmus.train.stage import Stage

SIZES = ((16, 16), (40, 20), (20, 50), (33, 31))
WAYS: dict[str, tuple[TilingConfig, ArrangementConfig]] = {
    "llava-next": (AnyresTiles(), Anyres()),
    "llava15-hd": (AnyresTiles(grids=LLAVA15_HD_GRIDS), Anyres()),
    "onevision": (AnyresTiles(grids=tuple((c, r) for c in (1, 2, 3) for r in (1, 2, 3))), Anyres(max_tiles=2)),
    "internvl": (DynamicTiles(max_tiles=6), Concatenate()),
    "mm1": (SubImages(), Concatenate()),
    "tokenpacker-hd": (TokenPackerTiles(), Separated()),
    "deepstack-l": (AnyresTiles(grids=((1, 2), (2, 1), (3, 1)), pad=False), DeepStack(groups=3, start_layer=0)),
}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A picture of one colour and of its own size."""

    number: int

    @property
    def key(self) -> str:
        return f"sheet {self.number}"

    def load(self) -> Image.Image:
        return Image.new("RGB", SIZES[self.number % len(SIZES)], COLOURS[self.number // 2 % len(COLOURS)])


@dataclass(frozen=True, kw_only=True)
class Sheets(SourceConfig):
    """Samples with no image, one, and two, of different sizes."""

    num: int = 16

    def build(self) -> Dataset:
        return SheetSamples(self.num)


class SheetSamples:
    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Sample:
        images = tuple(Sheet(number=index + place) for place in range(index % 3))
        question = Turn(role="user", text=IMAGE_MARK * len(images) + "Which?")
        return Sample(id=f"sheet/{index}", turns=(question, Turn(role="assistant", text="red")), images=images)


def tiled(stage: Stage, way: str, **changes: Any) -> Stage:
    assert isinstance(stage.model.encoder, VisionEncoder)
    assert stage.model.llm is not None
    tiles, arrange = WAYS[way]
    model = replace(
        stage.model,
        encoder=replace(stage.model.encoder, tiles=tiles, views_at_once=3),
        arrange=arrange,
        llm=replace(stage.model.llm, max_tokens=128),
    )
    source = (Source(of=Sheets()),)
    return replace(stage, model=model, data=source, validation=source, steps=3, **changes)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("way", WAYS)
def test_a_few_steps_train_and_answer(way: str, tmp_path: Path) -> None:
    stage = tiled(tiny_stage(tmp_path), way, train=("connector", "arrange") if way != "internvl" else ("connector",))
    if not stage.model.arrange.parameters(stage.model.target()):
        stage = replace(stage, train=("connector",))
    run = train(stage, tmp_path / "run", progress=False)
    assert run.result["validation_loss"] is not None
    model = run.load_model()
    dataset = Sheets().build()
    assert len(model.answer([dataset[1], dataset[5], dataset[0]])) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_its_samples_and_every_count_is_the_same(way: str, tmp_path: Path) -> None:
    config: Model = tiled(tiny_stage(tmp_path), way).model
    torch.manual_seed(0)
    model = VisionLanguageModel(config).eval()
    dataset = Sheets().build()
    samples = [dataset[index] for index in (1, 0, 2, 5)]

    def losses(some: list[Sample]) -> list[float]:
        pixels, plans = model.prepare(some)
        batch = config.batch(some, tokenizer=model.llm.tokenizer, plans=plans, pixels=pixels)
        assert int(batch.visual.sum()) == sum(config.num_visual_tokens(one) for one in plans)
        with torch.no_grad():
            found: list[float] = model(batch).row_losses(len(some)).tolist()
        return found

    together = losses(samples)
    alone = [losses([sample])[0] for sample in samples]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), atol=1e-4, rtol=1e-4)
    for size in SIZES:
        assert cost(config, image=size).visual_tokens == config.num_visual_tokens(config.encoder.plan(size))


def test_an_encoder_that_learns_sees_tiles_in_chunks(tmp_path: Path) -> None:
    stage = tiled(tiny_stage(tmp_path), "llava-next", train=("connector", "arrange", "encoder"), seed=3)
    assert isinstance(stage.model.encoder, VisionEncoder)
    again = replace(stage.model.encoder, checkpointing=True, views_at_once=1)
    first = train(stage, tmp_path / "kept", progress=False)
    second = train(replace(stage, model=replace(stage.model, encoder=again)), tmp_path / "again", progress=False)
    torch.testing.assert_close(first.weights(), second.weights(), atol=1e-4, rtol=1e-3)


def test_resolution_rises_from_stage_to_stage(tmp_path: Path) -> None:
    """Qwen-VL's stages at 224 and 448 px, and LLaVA-1.5-HD's tiles after a stage without them, in small."""
    low = tiled(tiny_stage(tmp_path), "internvl", train=("connector", "encoder"))
    assert isinstance(low.model.encoder, VisionEncoder)
    small = replace(low.model.encoder, tiles=OneView())
    low = replace(low, model=replace(low.model, encoder=small, arrange=Concatenate()))
    run = train(low, tmp_path / "low", progress=False)
    high = replace(low, start_from=str(run.folder), model=replace(low.model, encoder=replace(small, image_size=32)))
    risen = train(high, tmp_path / "high", progress=False)
    assert risen.weights().keys() == run.weights().keys()
    tiles, arrange = WAYS["llava15-hd"]
    cut = replace(low, start_from=str(run.folder), train=("connector", "arrange", "encoder"))
    cut = replace(cut, model=replace(low.model, encoder=replace(small, tiles=tiles), arrange=arrange))
    finished = train(cut, tmp_path / "tiles", progress=False)
    assert set(finished.weights()) - set(run.weights()) == {"arrange.newline"}


def test_a_new_newline_learns_now_or_has_learnt_before(tmp_path: Path) -> None:
    stage = tiled(tiny_stage(tmp_path), "llava-next", train=("connector",))
    with pytest.raises(ValueError, match=r"32 new parameters .* does not name 'arrange'"):
        train(stage, tmp_path / "run", progress=False)
    first = train(replace(stage, train=("connector", "arrange"), steps=1), tmp_path / "first", progress=False)
    later = train(replace(stage, start_from=str(first.folder), steps=1), tmp_path / "later", progress=False)
    assert torch.equal(later.weights()["arrange.newline"], first.weights()["arrange.newline"])


def test_another_layer_is_still_another_encoder(tmp_path: Path) -> None:
    low = tiny_stage(tmp_path, steps=1, validation=())
    run = train(low, tmp_path / "low", progress=False)
    assert isinstance(low.model.encoder, VisionEncoder)
    other = replace(low.model, encoder=replace(low.model.encoder, layers=(0,)))
    with pytest.raises(ValueError, match="another encoder"):
        train(replace(low, start_from=str(run.folder), model=other), tmp_path / "other", progress=False)
