"""What an image processor makes of an image: carried over, or said by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_natives as tiny
import torch
import transformers
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from isthmus.cli.main import main
from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, ChatTemplate, QuestionAnswer
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import DynamicTiles, OneView
from isthmus.exchange import export, import_native
from isthmus.exchange.goals import lacks
from isthmus.exchange.importing import check_ready
from isthmus.exchange.views import not_carried, tiles_of
from isthmus.llms import Generation

INTERNVL = {**tiny.PREPROCESSOR, "image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False}
IDEFICS2 = {**tiny.PREPROCESSOR, "image_processor_type": "Idefics2ImageProcessor", "do_pad": True}
PERCEPTION = {"image_processor_type": "PerceptionLMImageProcessorFast", "vision_input_type": "thumb+tile"}


def native(name: str, config: Any, about: dict[str, Any], folder: Path) -> Path:
    tiny.make(name, config, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(("fewest", "most"), [(1, 1), (1, 4), (1, 12), (1, 40), (2, 12)])
def test_our_tiles_are_those_of_internvl(fewest: int, most: int) -> None:
    tiles = tiles_of("internvl", INTERNVL | {"min_patches": fewest, "max_patches": most})
    assert tiles == DynamicTiles(min_tiles=fewest, max_tiles=most)
    sizes = [(width, height) for width in range(7, 120, 4) for height in range(7, 120, 4)]
    sizes += [(17 * ratio, 17) for ratio in range(1, 9)] + [(50, 40), (100, 80), (25, 24), (30, 20), (20, 30)]
    for width, height in sizes:
        grid = tiles.cut((width, height), 16).grid
        assert (grid.columns, grid.rows) == get_optimal_tiled_canvas((height, width), (16, 16), fewest, most)


def test_internvl_comes_in_with_its_tiles_and_goes_out_again(tmp_path: Path) -> None:
    about = INTERNVL | {"min_patches": 1, "max_patches": 6}
    folder = native("InternVLForConditionalGeneration", tiny.internvl(), about, tmp_path / "native")
    done = import_native(folder, tmp_path / "run", prompt=QuestionAnswer())
    encoder, llm = done.run.model_config.encoder, done.run.model_config.llm
    assert isinstance(encoder, VisionEncoder)
    assert (encoder.tiles, done.left) == (DynamicTiles(max_tiles=6), {})
    assert llm is not None
    assert llm.max_tokens == 640, "as many as its language model has positions"
    values = np.random.default_rng(0).integers(0, 255, (20, 41, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "wide.png")
    picture = FileImage(root=str(tmp_path), path="wide.png")
    model = done.run.load_model()
    assert model.encoder is not None
    seen = model.encoder.prepare(picture.load())
    theirs = GotOcr2ImageProcessorPil(
        size=about["size"],
        image_mean=about["image_mean"],
        image_std=about["image_std"],
        max_patches=6,
        crop_to_patches=True,
    )(images=[picture.load()], return_tensors="pt")
    assert seen.pixels.shape == theirs["pixel_values"].shape == (3, 3, 16, 16)
    torch.testing.assert_close(seen.pixels, theirs["pixel_values"], atol=1e-5, rtol=0)
    sample = Sample(id="a", turns=(Turn(role="user", text="<image>\nWhat?"),), images=(picture,))
    assert len(model.answer([sample], Generation(max_new_tokens=2))) == 1
    out = export(done.run, "internvl", tmp_path / "out", images=[picture])
    assert out.certificate.different == ()
    assert "give the processor min_patches=1, max_patches=6" in " ".join(out.notes)
    bare = replace(encoder, tiles=DynamicTiles(thumbnail=False))
    assert "thumbnail=True" in lacks("internvl", replace(done.run.model_config, encoder=bare))
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").model_type == "internvl"


def test_another_processor_of_internvl_sees_one_view(tmp_path: Path) -> None:
    assert tiles_of("internvl", tiny.PREPROCESSOR) == OneView()
    assert tiles_of("llava", INTERNVL) == OneView()
    said = not_carried("internvl", INTERNVL | {"min_patches": 6}, 16)
    assert list(said) == ["the order of equal grids from min_patches=6 on"]


def test_room_is_made_for_all_tiles(tmp_path: Path) -> None:
    config = tiny.internvl()
    config.text_config.max_position_embeddings = 3_000
    folder = native("InternVLForConditionalGeneration", config, INTERNVL, tmp_path / "native")
    llm = import_native(folder, tmp_path / "run").run.model_config.llm
    assert llm is not None
    assert llm.max_tokens == 2_048 + 12 * 4


def test_what_idefics2_does_to_images_is_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = {"shortest_edge": 8, "longest_edge": 16}
    about = {**IDEFICS2, "size": size, "do_image_splitting": True}
    folder = native("Idefics2ForConditionalGeneration", tiny.idefics2(), about, tmp_path / "native")
    assert main(["import", str(folder), "--to", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "left out: do_image_splitting=True (there an image is five views" in printed
    assert "--model.encoder.tiles sub-images" in printed
    assert f"left out: size={size}, do_pad=True (there an image keeps its shape" in printed
    kept = json.loads((tmp_path / "run" / "finished.json").read_text())["left_out"]
    assert set(kept) == {"do_image_splitting=True", f"size={size}, do_pad=True"}


@pytest.mark.parametrize(
    ("kind", "about", "said"),
    [
        ("idefics2", {**IDEFICS2, "size": {"shortest_edge": 16, "longest_edge": 16}}, []),
        ("perception_lm", PERCEPTION | {"max_num_tiles": 9}, ["vision_input_type='thumb+tile', max_num_tiles=9"]),
        ("perception_lm", {"image_processor_type": "PerceptionLMImageProcessor", "vision_input_type": "vanilla"}, []),
        ("llava", tiny.PREPROCESSOR, []),
        ("llava", {"size": {"shortest_edge": 16}, "do_center_crop": True}, []),
        ("llava", {"size": {"shortest_edge": 16}}, ["size={'shortest_edge': 16}, do_pad=False"]),
        ("llava_next", {"size": {"shortest_edge": 16}, "do_pad": True}, []),
    ],
)
def test_what_is_not_carried_over_is_named(kind: str, about: dict[str, Any], said: list[str]) -> None:
    assert list(not_carried(kind, about, 16)) == said


def test_tiles_of_another_size_than_the_tower_are_refused() -> None:
    with pytest.raises(ValueError, match="tile_size=32 before a tower for 16 px"):
        check_ready({**tiny.PREPROCESSOR, **PERCEPTION, "tile_size": 32}, 16)


@pytest.mark.parametrize(
    ("kind", "bounds"), [("internvl", ("<img>", "</img>")), ("idefics2", ("<fake_token_around_image>",))]
)
@pytest.mark.parametrize("known", [True, False])
def test_tokens_around_images_are_written_where_the_tokenizer_has_them(
    kind: str, bounds: tuple[str, ...], known: bool, tmp_path: Path
) -> None:
    configs = {"internvl": tiny.internvl, "idefics2": tiny.idefics2}
    names = {"internvl": "InternVLForConditionalGeneration", "idefics2": "Idefics2ForConditionalGeneration"}
    folder = native(names[kind], configs[kind](), INTERNVL if kind == "internvl" else IDEFICS2, tmp_path / "native")
    if known:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(bounds), special_tokens=True)
        tokenizer.save_pretrained(folder)
    prompt = import_native(folder, tmp_path / "run").run.model_config.prompt
    wanted = Bounded(style=ChatTemplate(), before=bounds[0], after=bounds[-1]) if known else ChatTemplate()
    assert prompt == wanted
