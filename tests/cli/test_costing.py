"""`isthmus cost`: sizes and tilings, the shelf, what fits, formulas, and what can be named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from isthmus.branches import Branch
from isthmus.cli.costing import cost_tables, find_stage, read_size
from isthmus.cli.main import main
from isthmus.config import to_json
from isthmus.connectors import CONNECTORS, LinearConfig, VideoQFormerConfig
from isthmus.encoders import VideoEncoder, VisionEncoder
from isthmus.recipes import RECIPES
from isthmus.runs import STAGE_FILE


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["cost", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("text", "size"), [("1344x896", (1_344, 896)), (" 8X9 ", (8, 9)), ("3*4", (3, 4))])
def test_sizes_of_pictures(text: str, size: tuple[int, int]) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["1344", "0x5", "axb", "5x", "1000000x5", "-3x4", "3x4x5"])
def test_no_sizes_of_pictures(text: str) -> None:
    with pytest.raises(ValueError, match="--image 1344x896"):
        read_size(text)


def test_sizes_and_a_tiling_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model.encoder.tiles", "anyres", "--model.arrange", "anyres", "--text-tokens", "0")
    text = said(capsys, "llava15/stage1", "--image", "672x672", "336x336", *options)
    assert "2,928 in 5 views" in text
    row = next(line for line in text.splitlines() if "336 x 336 " in line and "|" not in line and "views" not in line)
    assert "1,176" in row or "1,752" in row


def test_formulas_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "llava15/stage1", "--formulas")
    assert "d_v d + d, then depth - 1 times d d + d." in text
    assert "L [2 n (4 d d + FFN)" in text
    assert "AdamW: 2 * gradients." in " ".join(text.split())


def test_the_shelf_needs_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--shelf", "--text-tokens", "0")
    for name in CONNECTORS:
        assert f" {name} " in text
    row = next(line for line in text.splitlines() if " mlp " in line)
    assert "20,979,712" in row
    assert "24,159,191,040" in row


def test_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "llava15/stage1", "--fit", "24GiB")
    rows = [line for line in text.splitlines() if " bfloat16" in line]
    assert len(rows) == 2
    assert text.count("does not fit") == 2


def test_every_size_that_is_named_gets_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    tiled = ("llava15/tiny-stage1", "--model.encoder.tiles", "anyres", "--image", "96x96", "192x192")
    shelf, fit = said(capsys, *tiled, "--shelf"), said(capsys, *tiled, "--fit", "2GiB")
    for text, rows in ((shelf, " linear "), (fit, " bfloat16")):
        assert "96 x 96 px" in text
        assert "192 x 192 px" in text
        found = [line for line in text.splitlines() if rows in line]
        assert len(found) == 2 * (1 if text is shelf else 2)
        assert found[0] != found[-1]
    assert main(["cost", "--shelf", "--fit", "2GiB"]) == 2
    assert "ask for one of the two" in capsys.readouterr().err


def test_a_hub_id_that_the_package_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert "20,979,712" in said(capsys, "llava-hf/llava-1.5-7b-hf")


def test_a_run_folder(tmp_path: Path) -> None:
    stage = RECIPES["quickstart"]()
    (tmp_path / STAGE_FILE).write_text(json.dumps({"stage": to_json(stage)}))
    assert find_stage(str(tmp_path)) == stage


def test_what_was_imported_without_a_language_model_asks_for_a_recipe(tmp_path: Path) -> None:
    model = to_json(RECIPES["blip2/tiny-stage1"]().model)
    told = {"imported_from": "a file", "stage": {"type": "Stage", "name": "imported/it", "model": model}}
    (tmp_path / STAGE_FILE).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"\(a file\) without a language model: .* recipe: .*blip2/tiny-stage1"):
        find_stage(str(tmp_path))


def test_a_stage_without_a_language_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "blip2/stage1")
    assert "32 caption tokens, 1,680 pairs" in text
    row = next(line for line in text.splitlines() if " connector " in line)
    assert row.count("186,705,470") == 2
    for name in ("keys and values of the image", "queries alone", "caption alone", "judged", "caption, written"):
        assert name in text
    assert "memory to train, 1,680 pairs at a time" in text


def test_middleware_is_counted_from_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "internvl1/stage1")
    assert "features, pooled" in text
    assert "caption alone" in text
    assert "judged" not in text


def test_what_fits_without_a_language_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "blip2/tiny-stage1", "--fit", "2GiB")
    assert len([line for line in text.splitlines() if " bfloat16" in line]) == 2


@pytest.mark.parametrize("options", [("--shelf",), ("--image", "96x96", "192x96")])
def test_what_a_first_stage_has_not(capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    assert main(["cost", "blip2/tiny-stage1", *options]) == 2
    assert "has no language model" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of the published AST extractor itself
@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_has_its_cost_without_a_network(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The hub is never asked, whatever models the recipe names: their numbers are in the package."""
    text = said(capsys, name)
    learnt = next(line for line in text.splitlines() if " all" in line)
    assert any(int(cell.replace(",", "")) > 0 for cell in learnt.split() if cell.replace(",", "").isdigit())
    assert "memory to train" in text


def test_branches_are_printed() -> None:
    eye = VisionEncoder()
    small = VideoQFormerConfig().image
    image = replace(small, num_queries=4, width=32, layers=2, heads=2, ffn_width=64, start_from=None)
    video = Branch(encoder=VideoEncoder(tower=eye, max_frames=2), connector=VideoQFormerConfig(image=image))
    audio = Branch(encoder=eye, connector=LinearConfig())
    stage = RECIPES["quickstart"]()
    stage = replace(stage, model=replace(stage.model, video=video, audio=audio), train=("connector", "video.connector"))
    console = Console(width=160)
    with console.capture() as captured:
        for table in cost_tables(stage, image=None, text_tokens=8):
            console.print(table)
    text = captured.get()
    assert "all, and branches" in text
    row = next(line for line in text.splitlines() if " video, all " in line)
    assert f" {video.connector.num_tokens(video.encoder.shape().grid)} " in row
    assert f"{2 * eye.flops():,}" in next(line for line in text.splitlines() if " video encoder " in line)
    assert f"{eye.shape().grid.size}" in next(line for line in text.splitlines() if " audio, all " in line)


def test_adapters_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    fields = ("--model.llm.lora.rank", "4", "--train", "connector", "llm")
    assert "LoRA parameters, llm" in said(capsys, "quickstart", *fields)
