"""Costs of several pictures, of videos and sounds, in integers worked out by hand from the shapes."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_cost import llava
from tiny_ears import save_ear

from isthmus.branches import Branch
from isthmus.cli.main import main
from isthmus.connectors import ConnectorConfig, LinearConfig
from isthmus.connectors.arrange import ByInput, Concatenate, FramePool
from isthmus.encoders import AudioEncoder, VideoEncoder, VisionEncoder
from isthmus.encoders.tiles import DynamicTiles
from isthmus.measure import Inputs, cost, fits, formulas, shelf, training_memory
from isthmus.measure.known import offline
from isthmus.measure.memory import _connector_activations

VIT = 381_918_216_192
"""CLIP ViT-L/14 over 577 tokens: 24 (2 x 577 x 12,582,912 + 4 x 577^2 x 1,024) + 2 x 576 x 588 x 1,024."""
MLP = 24_159_191_040
"""2 x 576 (1,024 x 4,096 + 4,096^2)."""
TOKEN, PAIR, KV = 12_952_010_752, 4 * 32 * 4_096, 524_288
"""Vicuna-7B: products of a position, attention of a pair of positions, bytes of a position's keys and values."""


def test_five_pictures_are_the_long_prompt_of_five_views() -> None:
    bill = cost(llava(), text_tokens=0, inputs=Inputs(images=5))
    assert (bill.views, bill.visual_tokens) == (5, 2_880)
    assert bill.encoder.flops == 5 * VIT
    assert bill.connector.flops == 120_795_955_200 == 5 * MLP
    assert bill.llm.flops == 41_650_445_352_960 == 2_880 * TOKEN + 2_880**2 * PAIR
    assert bill.prefill_flops == 43_680_832_389_120
    assert bill.kv_bytes == 1_509_949_440 == 2_880 * KV


def test_every_frame_is_a_view_without_a_branch_for_videos() -> None:
    bill = cost(llava(), text_tokens=0, inputs=Inputs(images=0, frames=(25,)))
    assert (bill.views, bill.visual_tokens) == (25, 14_400)
    assert bill.llm.flops == 295_225_314_508_800
    assert bill.kv_bytes == 7_549_747_200
    mixed = cost(llava(), text_tokens=0, inputs=Inputs(images=1, frames=(16, 8)))
    assert replace(mixed, inputs=bill.inputs) == bill


def test_text_alone_has_no_views() -> None:
    bill = cost(llava(), text_tokens=64, inputs=Inputs(images=0))
    assert (bill.views, bill.visual_tokens, bill.encoder.flops, bill.connector.flops) == (0, 0, 0, 0)
    assert bill.llm.flops == bill.prefill_flops == 64 * TOKEN + 64**2 * PAIR
    assert bill.llm_visual_flops == 0
    assert bill.training_flops() == bill.llm.flops  # the connector that learns is not met


def test_an_arrangement_of_its_own_for_clips_counts() -> None:
    model = replace(llava(), arrange=ByInput(image=Concatenate(), clip=FramePool()))
    assert cost(model, text_tokens=0, inputs=Inputs(frames=(8,))).visual_tokens == 576 + 8 * 12 * 12


@pytest.mark.parametrize(("each", "views"), [(True, 2 * (4 + 1)), (False, 2)])
def test_several_pictures_are_tiled_where_the_encoder_says_so(each: bool, views: int) -> None:
    tiled = VisionEncoder(name="bundled/eye", image_size=96, tiles=DynamicTiles(max_tiles=4), tile_several=each)
    model = replace(llava(), encoder=tiled, connector=LinearConfig())
    assert cost(model, image=(192, 192), inputs=Inputs(images=2)).views == views
    assert cost(model, image=(192, 192)).views == 5


def with_video(connector: ConnectorConfig) -> Branch:
    tower = llava().encoder
    assert isinstance(tower, VisionEncoder)
    return Branch(encoder=VideoEncoder(tower=tower, max_frames=8), connector=connector)


def test_a_video_goes_through_its_branch() -> None:
    model = replace(llava(), video=with_video(LinearConfig()))
    bill = cost(model, train=("connector", "video.connector"), text_tokens=0, inputs=Inputs(frames=(8,)))
    (video,) = bill.branches
    assert (bill.views, video.views, video.visual_tokens, bill.visual_tokens) == (1, 1, 4_608, 5_184)
    clip, projected = 3_055_345_729_536, 38_654_705_664
    assert (clip, projected) == (8 * VIT, 2 * 8 * 576 * 1_024 * 4_096)
    assert video.prompt_flops == clip + projected
    read = 5_184 * TOKEN + 5_184**2 * PAIR
    assert bill.prefill_flops == VIT + MLP + clip + projected + read
    assert bill.kv_bytes == 5_184 * KV
    assert bill.training_flops() == VIT + 3 * MLP + clip + 3 * projected + 2 * read
    assert bill.training_flops(cached_features=True) == 3 * MLP + 3 * projected + 2 * read
    alone = cost(model, train=("video.connector",), text_tokens=0)
    assert alone.training_flops() == alone.prefill_flops == VIT + MLP + alone.llm.flops
    with pytest.raises(ValueError, match="9 frames came to an encoder that takes clips of 8"):
        cost(model, inputs=Inputs(frames=(9,)))


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_a_sound_goes_through_its_branch(tmp_path: Path) -> None:
    save_ear("ast", tmp_path / "ear")
    ear = AudioEncoder(name=str(tmp_path / "ear"), window_s=0.3, max_windows=3)
    model = replace(llava(), audio=Branch(encoder=ear, connector=LinearConfig()))
    grid = ear.shape().grid
    (heard,) = cost(model, inputs=Inputs(sounds=2)).branches
    assert (heard.views, heard.visual_tokens) == (2, 2 * grid.size)
    assert heard.prompt_flops == 2 * (ear.flops() + 2 * grid.size * 16 * 4_096)
    split = replace(model, audio=Branch(encoder=replace(ear, window_views=True), connector=LinearConfig()))
    (each,) = cost(split, inputs=Inputs(sounds=2)).branches
    assert (each.views, each.visual_tokens) == (6, heard.visual_tokens)
    assert each.prompt_flops == heard.prompt_flops


def test_activations_are_those_of_every_view_and_position() -> None:
    model = offline(llava())
    source, target = model.source(), model.target()
    one, four = (training_memory(model, inputs=Inputs(images=count)) for count in (1, 4))
    assert four.total - four.activations == one.total - one.activations
    connector = [_connector_activations(model.connector, source, target, views, True) for views in (1, 4)]
    assert connector[1] == 4 * connector[0]
    # Attention keeps its scores, so that the language model's part grows faster than its positions.
    assert four.activations - connector[1] > (2_368 / 640) * (one.activations - connector[0])
    budget = 200 * 2**30
    assert fits(model, budget)[0].samples > fits(model, budget, inputs=Inputs(images=4))[0].samples
    rows = {row.name: row.bill for row in shelf(model, inputs=Inputs(images=4))}
    assert rows["linear"] is not None
    assert rows["linear"].visual_tokens == 4 * 576


@pytest.mark.parametrize("wrong", [{"images": -1}, {"sounds": -2}, {"frames": (8, 0)}])
def test_no_number_of_inputs(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="videos of 1 frame or more"):
        Inputs(**wrong)


def test_inputs_in_words() -> None:
    assert Inputs().named((336, 336)) == "an image of 336 x 336 px"
    assert Inputs(images=2, frames=(8, 4), sounds=1).named(None) == "2 images, 2 videos of 8 and 4 frames, a sound"
    assert Inputs(images=0, frames=(1,)).named(None) == "a video of 1 frame"
    assert Inputs(images=0).named(None) == "text alone"


def test_the_command_line_counts_what_it_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "llava15/stage1", "--images", "4", "--text-tokens", "0", "--formulas"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "llava15/stage1: 4 images of 336 x 336 px, 0 text tokens" in said
    assert "2,304 in 4 views" in said
    assert "32,624,571,580,416" in said  # 2,304 A + 2,304^2 x 524,288
    assert "above max_tokens 2,048 \u2502 2,304" in said
    assert "the positions that these take together" in said
    assert main(["cost", "llava15/stage1", "--images", "0", "--frames", "8", "4"]) == 0
    assert "2 videos of 8 and 4 frames" in capsys.readouterr().out
    for recipe, options, message in (
        ("llava15/stage1", ("--sounds", "1"), "no audio branch"),
        ("llava15/stage1", ("--frames", "0"), "videos of 1 frame or more"),
        ("blip2/stage1", ("--images", "2"), "has no language model"),
    ):
        assert main(["cost", recipe, *options]) == 2
        assert message in capsys.readouterr().err


def test_formulas_name_the_branches() -> None:
    parts = {formula.part for formula in formulas(replace(llava(), video=with_video(LinearConfig())))}
    assert {"encoder", "video encoder", "video connector", "video arrange", "llm", "all"} <= parts
