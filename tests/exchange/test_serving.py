"""An exported folder answers over HTTP in the OpenAI form, through `transformers serve` and no code of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_natives as tiny
from PIL import Image
from served import asked, served

from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.exchange import export, import_native
from isthmus.llms import Generation

pytest.importorskip("fastapi", reason="transformers[serving] is not installed")

CASES: dict[str, tuple[str, Any, Any]] = {
    "llava": ("LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), Vicuna(system="Answer.")),
    "llava-next": ("LlavaNextForConditionalGeneration", tiny.llava_next(), Vicuna(system="Answer.")),
    "idefics2": (
        "Idefics2ForConditionalGeneration",
        tiny.idefics2(),
        Bounded(style=QuestionAnswer(), before="<unk>", after="<unk>"),
    ),
}
NEW_TOKENS = 6


@pytest.mark.long
@pytest.mark.parametrize("to", list(CASES))
def test_a_served_export_says_what_the_run_says(to: str, tmp_path: Path) -> None:
    name, config, prompt = CASES[to]
    values = np.random.default_rng(4).integers(0, 255, (30, 44, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = FileImage(root=str(tmp_path), path="a.png")
    tiny.make(name, config, tmp_path / "native")
    run = import_native(tmp_path / "native", tmp_path / "run", prompt=prompt).run
    export(run, to, tmp_path / "out", images=[image])
    sample = Sample(id="a", turns=(Turn(role="user", text="<image>\nWhat is it?"),), images=(image,))
    mine = run.load_model().answer([sample], Generation(max_new_tokens=NEW_TOKENS))[0]
    with served(tmp_path / "out") as address:
        said = asked(address, tmp_path / "out", tmp_path / "a.png", "What is it?", max_tokens=NEW_TOKENS)
    assert said.strip() == mine
    assert mine
