"""InternVL goes out with its tiles: those of its processor, which resizes with torchvision and here also with PIL."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_natives as tiny
import torch
import transformers
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from isthmus.connectors.arrange import Anyres
from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, PromptStyle, QuestionAnswer, Vicuna
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import AnyresTiles, DynamicTiles
from isthmus.encoders.vision import VisionTower
from isthmus.exchange import export, find_goal, import_native
from isthmus.exchange.certificate import CERTIFICATE_FILE
from isthmus.exchange.folders import write_run
from isthmus.exchange.processors import image_backend
from isthmus.model import Model
from isthmus.runs import Run

SIZES = [(16, 16), (61, 30), (20, 61), (48, 33)]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run imported from the class, of one view, beside four pictures."""
    root = tmp_path_factory.mktemp("internvl")
    tiny.make("InternVLForConditionalGeneration", tiny.internvl(), root / "native")
    import_native(root / "native", root / "run", prompt=QuestionAnswer())
    for number, (width, height) in enumerate(SIZES):
        values = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).save(root / f"{number}.png")
    return root


def tiled(root: Path, tiles: DynamicTiles, prompt: PromptStyle) -> Model:
    model = Run(root / "run").model_config
    assert isinstance(model.encoder, VisionEncoder)
    return replace(model, encoder=replace(model.encoder, tiles=tiles), prompt=prompt)


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        (QuestionAnswer(), "<s><image>\nQuestion: Why? Answer:"),
        (Bounded(style=Vicuna(system="s"), before="<pad>", after="<unk>"), "<s>s USER: <image>\nWhy? ASSISTANT:"),
        (
            Bounded(style=Vicuna(system="s"), before="<img>", after="</img>"),  # no tokens of the tokenizer
            "<s>s USER: <img><image></img>\nWhy? ASSISTANT:",
        ),
    ],
)
def test_tiles_and_a_template_go_out(native: Path, tmp_path: Path, prompt: PromptStyle, written: str) -> None:
    model = tiled(native, DynamicTiles(max_tiles=4), prompt)
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", name="t", model=model, tensors=Run(native / "run").weights(), origin="a test")
    images = [FileImage(root=str(native), path=f"{number}.png") for number in range(len(SIZES))]
    out = export(Run(tmp_path / "run"), "internvl", tmp_path / "out", images=images)
    said = json.loads((tmp_path / "out" / CERTIFICATE_FILE).read_text())
    assert (said["different"], len(said["images"])) == ([], len(SIZES))
    assert 0.1 < said["largest_logit"] > 1e5 * said["logit_difference"]
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == written
    if image_backend() == "torchvision":
        assert said["compared"] == ["ids", "logits", "writings", "pixels", "batches"]
        processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
        assert processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == written
        assert len(out.notes) == 1
    else:
        assert (said["compared"], said["pixel_gap"]) == (["ids", "logits", "writings"], None)
        assert "Skipped: the processor" in out.notes[1]


def test_the_classs_processor_makes_the_same_tiles(native: Path) -> None:
    tower = tiled(native, DynamicTiles(max_tiles=6), QuestionAnswer()).encoder.build()
    assert isinstance(tower, VisionTower)
    options = {key: tiny.PREPROCESSOR[key] for key in ("image_mean", "image_std", "size", "resample")}
    made = transformers.GotOcr2ImageProcessorPil(**options, crop_to_patches=True, min_patches=1, max_patches=6)
    views = []
    for number in range(len(SIZES)):
        image = Image.open(native / f"{number}.png")
        theirs = made(image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(tower.prepare(image).pixels, theirs, atol=1e-5, rtol=0)
        views.append(len(theirs))
    assert views == [1, 3, 4, 7]


def test_grids_of_one_size_are_never_equally_near_alone() -> None:
    """Their order differs from that of the class: at every size where two are equally near, another is nearer."""
    sides = range(1, 7)
    midpoints = {(a * d + b * c, 2 * b * d) for a, b, c, d in itertools.product(sides, sides, (1, 2, 3), sides)}
    for most in (1, 2, 6, 12, 40):
        for width, height in sorted(midpoints):
            for scale in (1, 40):
                size = (width * scale, height * scale)
                grid = DynamicTiles(max_tiles=most).cut(size, 16).grid
                assert (grid.columns, grid.rows) == get_optimal_tiled_canvas(size[::-1], (16, 16), 1, most)


def test_other_tiles_and_fits_are_refused(native: Path) -> None:
    model = tiled(native, DynamicTiles(max_tiles=4), QuestionAnswer())
    assert find_goal("internvl", model).class_name == "InternVLForConditionalGeneration"
    for tiles in (DynamicTiles(min_tiles=2), DynamicTiles(thumbnail=False), AnyresTiles(grids=((1, 2),))):
        with pytest.raises(ValueError, match=r"cuts images by DynamicTiles\(min_tiles=1, thumbnail=True\), this is"):
            find_goal("internvl", replace(model, encoder=replace(model.encoder, tiles=tiles)))
    with pytest.raises(ValueError, match="InternVL squashes images, this encoder's fit is 'pad'"):
        find_goal("internvl", replace(model, encoder=replace(model.encoder, fit="pad")))
    with pytest.raises(ValueError, match="no arrangement such as Anyres"):
        find_goal("internvl", replace(model, arrange=Anyres(digits=7)))
