"""Tokens of several branches in the order of the inputs, and what is refused before anything is built."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_ears import save_ear
from tiny_models import save_model

from isthmus.branches import Branch, join_placed
from isthmus.connectors import AudioQFormerConfig, ChannelConcatConfig, InstructQFormerConfig, MlpConfig, QFormerConfig
from isthmus.connectors.arrange import (
    Anyres,
    ArrangementConfig,
    ByInput,
    ChannelStack,
    Concatenate,
    DeepStack,
    Separated,
)
from isthmus.encoders import AudioEncoder, PairedEncoder, VisionEncoder
from isthmus.encoders.tiles import (
    AnyresTiles,
    DynamicTiles,
    FinerTiles,
    OneView,
    SubImages,
    TilingConfig,
    TokenPackerTiles,
)
from isthmus.features import BranchName, Grid, Placed, Plan
from isthmus.llms import CausalLM
from isthmus.model import Model


def plan(branch: BranchName) -> Plan:
    return Plan(size=(1, 1), tiles=Grid(1, 1, 1), views=range(1), branch=branch)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_inputs_keep_their_order() -> None:
    plans = [plan("audio"), plan("image"), plan("audio"), plan("image")]
    images = Placed(tokens=numbers(1, 2, 3), lengths=(1, 2), deeper=(numbers(10, 20, 30),), layers=(4,))
    sounds = Placed(tokens=numbers(7, 8, 9), lengths=(2, 1))
    joined = join_placed(plans, {"image": images, "audio": sounds})
    assert joined.tokens.squeeze(1).tolist() == [7, 8, 1, 9, 2, 3]
    assert joined.lengths == (2, 1, 1, 2)
    assert [one.squeeze(1).tolist() for one in joined.deeper] == [[0, 0, 10, 0, 20, 30]]
    assert joined.layers == (4,)


def test_memory_keeps_its_owners() -> None:
    plans = [plan("audio"), plan("image"), plan("image")]
    images = Placed(tokens=numbers(1, 2), lengths=(1, 1), memory=torch.ones(3, 1, 1), owner=(0, 0, 1))
    joined = join_placed(plans, {"image": images, "audio": Placed(tokens=numbers(7), lengths=(1,))})
    assert joined.owner == (1, 1, 2)
    assert joined.memory is images.memory


def test_misfits_are_refused_when_built(tmp_path: Path) -> None:
    save_ear("ast", tmp_path / "ear")
    ear = AudioEncoder(name=str(tmp_path / "ear"), window_s=0.3)
    branch = Branch(encoder=ear, connector=AudioQFormerConfig(width=16, heads=2, ffn_width=24))
    model = Model(llm=CausalLM(name=save_model("llama", tmp_path)), audio=branch)
    model.check()
    assert model.num_visual_tokens(plan("audio")) == 8
    assert model.fingerprint() != replace(model, audio=None).fingerprint()
    with pytest.raises(ValueError, match="Branches for video or audio need a language model"):
        replace(model, llm=None, connector=QFormerConfig(text=True)).check()
    with pytest.raises(ValueError, match="only the connector of images may"):
        replace(model, audio=replace(branch, connector=InstructQFormerConfig())).check()
    frames = Branch(encoder=VisionEncoder(), connector=MlpConfig(), arrange=DeepStack(start_layer=0, groups=1))
    for arrange in (frames.arrange, ChannelStack()):
        with pytest.raises(ValueError, match=f"{type(arrange).__name__} adds .* clips and sounds are not cut"):
            replace(model, video=replace(frames, arrange=arrange)).check()
    replace(model, video=replace(frames, arrange=DeepStack(start_layer=0, groups=1, sampling="repeat"))).check()
    assert replace(model, audio=replace(branch, connector=MlpConfig())).num_visual_tokens(plan("audio")) == 80


def test_the_page_says_what_runs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "many-inputs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/many-inputs.md", "exec"), {})


STRETCHED = AnyresTiles(pad=False)
HD = DeepStack(every_view=True, arrange=Anyres())


@pytest.mark.parametrize(
    ("tiles", "arrange"),
    [
        (DynamicTiles(), Anyres()),
        (SubImages(), Anyres(newline=False)),
        (TokenPackerTiles(), Anyres()),
        (STRETCHED, Anyres()),
        (STRETCHED, ByInput(image=Anyres())),
        (FinerTiles(tiles=STRETCHED), HD),
        (DynamicTiles(), ChannelStack(stack=DeepStack(arrange=Anyres()))),
    ],
    ids=lambda one: type(one).__name__,
)
def test_padding_is_not_cut_from_tiles_that_have_none(tiles: TilingConfig, arrange: ArrangementConfig) -> None:
    model = Model(encoder=VisionEncoder(tiles=tiles), arrange=arrange)
    with pytest.raises(ValueError, match=rf"{type(tiles).__name__} leaves none .* Use Anyres\(unpad=False\)"):
        model.check()


QUARTERS = AnyresTiles(grids=((2, 2),), pad=False)


@pytest.mark.parametrize(
    ("tiles", "arrange", "said"),
    [
        (OneView(), DeepStack(), r"DeepStack adds .* cuts none .* every group would be zeros\. Use AnyresTiles"),
        (OneView(), DeepStack(every_view=True), "cuts none"),
        (OneView(), ChannelStack(), "ChannelStack adds .* cuts none"),
        (DynamicTiles(max_tiles=1), DeepStack(), r"cuts none \(tiles=DynamicTiles\(min_tiles=1, max_tiles=1"),
        (
            QUARTERS,
            DeepStack(every_view=True),
            r"refines every view by 4 crops .* tiles=FinerTiles\(factor=2\), in",
        ),
        (FinerTiles(factor=3), HD, "refines every view by 4 crops"),
        (FinerTiles(), DeepStack(), "FinerTiles cuts crops of every view: use DeepStack with every_view=True"),
        (DynamicTiles(max_tiles=6), DeepStack(), "up to 6 tiles, more than DeepStack's groups=4.*groups=6"),
    ],
)
def test_crops_that_nobody_cuts_or_stacks_are_refused(
    tiles: TilingConfig, arrange: ArrangementConfig, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Model(encoder=VisionEncoder(tiles=tiles), arrange=arrange).check()


@pytest.mark.parametrize(
    ("tiles", "arrange", "tokens"),
    [
        (AnyresTiles(), Anyres(), 144 + 10 * (36 + 1)),  # 12 rows of three tiles, one of them padding on both sides
        (OneView(), Anyres(), 144 + 1),
        (DynamicTiles(), Anyres(unpad=False), 144 + 12 * (48 + 1)),  # four tiles, all of their rows
        (FinerTiles(), HD, 144 + 10 * (36 + 1)),
        (STRETCHED, DeepStack(), 144),
        (OneView(), DeepStack(sampling="repeat"), 144),
    ],
    ids=lambda one: type(one).__name__,
)
def test_arrangements_fit_these_tiles(tiles: TilingConfig, arrange: ArrangementConfig, tokens: int) -> None:
    model = Model(encoder=VisionEncoder(tiles=tiles), arrange=arrange)
    model.check()
    assert model.num_visual_tokens(model.encoder.plan((200, 50))) == tokens


@pytest.mark.parametrize(
    ("tiles", "arrange", "said"),
    [
        (
            FinerTiles(),
            Anyres(),
            r"2 x 1 tiles with whole='first' has 3 views, but 15 came\. Finer crops \(FinerTiles\)",
        ),
        (FinerTiles(), Separated(), "has 3 views, but 15 came"),
        (FinerTiles(tiles=DynamicTiles()), DeepStack(every_view=True), "FinerTiles needs the whole image first"),
        (FinerTiles(tiles=DynamicTiles()), Concatenate(), "FinerTiles needs the whole image first"),
        (SubImages(whole="none"), DeepStack(), "Choose a tiling that keeps the whole image"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_views_that_an_arrangement_cannot_place_are_refused_before_anything_is_built(
    tiles: TilingConfig, arrange: ArrangementConfig, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Model(encoder=VisionEncoder(tiles=tiles), arrange=arrange).check()


def test_the_tiles_of_two_towers_are_looked_at_too() -> None:
    both = PairedEncoder(first=VisionEncoder(tiles=DynamicTiles()))
    with pytest.raises(ValueError, match=r"DynamicTiles leaves none .* Use Anyres\(unpad=False\)"):
        Model(encoder=both, connector=ChannelConcatConfig(), arrange=Anyres()).check()
