"""LLaVA-NeXT goes out with its tiles; where the class lays out other pictures otherwise, the export says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_natives as tiny
from PIL import Image

from isthmus.connectors.arrange import Anyres
from isthmus.data.images import FileImage
from isthmus.data.prompts import QuestionAnswer
from isthmus.encoders import VisionEncoder
from isthmus.exchange import export, import_native
from isthmus.exchange.folders import write_run
from isthmus.runs import Run


@pytest.mark.parametrize(
    ("digits", "tile_several", "said"),
    [(7, True, []), (None, True, ["digits=None"]), (7, False, ["tile_several=False"])],
)
def test_what_the_class_does_otherwise_is_said(
    digits: int | None, tile_several: bool, said: list[str], tmp_path: Path
) -> None:
    tiny.make("LlavaNextForConditionalGeneration", tiny.llava_next(), tmp_path / "native")
    run = import_native(tmp_path / "native", tmp_path / "imported", prompt=QuestionAnswer()).run
    encoder = run.model_config.encoder
    assert isinstance(encoder, VisionEncoder)
    model = replace(
        run.model_config, encoder=replace(encoder, tile_several=tile_several), arrange=Anyres(digits=digits)
    )
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", name="t", model=model, tensors=run.weights(), origin="a test")
    values = np.random.default_rng(0).integers(0, 255, (20, 41, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "wide.png")
    picture = FileImage(root=str(tmp_path), path="wide.png")
    out = export(Run(tmp_path / "run"), "llava-next", tmp_path / "out", images=[picture])
    assert out.certificate.different == ()
    found = [note for note in out.notes if "digits=None" in note or "tile_several=False" in note]
    assert [word in note for word, note in zip(said, found, strict=True)] == [True] * len(said)
