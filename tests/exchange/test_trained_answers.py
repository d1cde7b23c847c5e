"""From training to an answer elsewhere: a run learns what two pictures show, goes out, and the class says it too.

The language model is the bundled one. Llava, LlavaNext and Idefics2 are asked over HTTP, through `transformers serve`;
Blip2 and InstructBlip, whose processors have no chat template, through `pipeline`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_natives as tiny
import torch
import transformers
from PIL import Image, ImageDraw
from served import asked, served

from isthmus.adapters import Lora
from isthmus.connectors import Idefics2Config, MlpConfig, QFormerConfig
from isthmus.connectors.arrange import Anyres
from isthmus.connectors.instruct_qformer import InstructQFormerConfig
from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources import LlavaFile, Source
from isthmus.encoders import VisionEncoder
from isthmus.encoders.tiles import AnyresTiles
from isthmus.exchange import export
from isthmus.exchange.certificate import CERTIFICATE_FILE
from isthmus.exchange.templates import prompt_text
from isthmus.llms import CausalLM, Generation
from isthmus.model import Model, VisionLanguageModel
from isthmus.recipes.bundled import READER
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.stage import AdamW, Cosine, Stage

QUESTION = "What is in the picture?"
ANSWERS = {"disc.png": "a white disc on blue", "bars.png": "three green bars"}
NEW_TOKENS = 16
SPEAKER = CausalLM(name="bundled/speaker", max_tokens=512)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model whose class is known, given a folder for a tower of its own, and what of it learns."""

    model: Callable[[Path], Model]
    train: tuple[str, ...] = ("connector", "llm")
    peak_lr: float = 2e-3
    steps: int = 20


def llava(root: Path) -> Model:
    """At another size than the eye's own."""
    eye = VisionEncoder(name="bundled/eye", image_size=48, layers=(-2,))
    return Model(encoder=eye, connector=MlpConfig(depth=2), llm=SPEAKER, prompt=Vicuna(system="Answer."))


def llava_next(root: Path) -> Model:
    """Small tiles, and adapters in the language model."""
    tiles = AnyresTiles(grids=((1, 2), (2, 1), (2, 2)))
    eye = VisionEncoder(name="bundled/eye", image_size=32, layers=(-2,), tiles=tiles)
    llm = CausalLM(name="bundled/speaker", max_tokens=512, lora=Lora(rank=8))
    return Model(encoder=eye, connector=MlpConfig(depth=2), arrange=Anyres(digits=7), llm=llm)


def idefics2(root: Path) -> Model:
    tower = saved_tower(transformers.SiglipVisionModel(tiny.siglip()), root / "siglip")
    connector = Idefics2Config(num_latents=8, layers=1, heads=4, kv_heads=2, head_width=16, project_width=704)
    prompt = Bounded(style=QuestionAnswer(), before="<unk>", after="<unk>")
    return Model(encoder=VisionEncoder(**tower, final_norm=True), connector=connector, llm=SPEAKER, prompt=prompt)


def blip2(root: Path) -> Model:
    return Model(encoder=eva(root), connector=qformer(text=False), llm=SPEAKER, placement="before-bos")


def instructblip(root: Path) -> Model:
    connector = InstructQFormerConfig(qformer=qformer(text=True), max_text_tokens=32)
    prompt = QuestionAnswer(question="{}")
    return Model(encoder=eva(root), connector=connector, llm=SPEAKER, placement="before-bos", prompt=prompt)


def eva(root: Path) -> VisionEncoder:
    config = transformers.Blip2VisionConfig(**tiny.VISION, image_size=16, patch_size=4)
    return VisionEncoder(**saved_tower(transformers.Blip2VisionModel(config), root / "eva"), class_token=True)


def qformer(*, text: bool) -> QFormerConfig:
    """In the sizes of the bundled reader, from whose weights it starts."""
    return QFormerConfig(**READER, num_queries=8, dropout=0.0, text=text)


def saved_tower(tower: Any, folder: Path) -> dict[str, Any]:
    """The options of an encoder that reads this tower, whose weights are large enough to tell pictures apart."""
    torch.manual_seed(3)
    for weight in tower.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    tower.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny.PREPROCESSOR))
    return {"name": str(folder), "image_size": 16, "layers": (-1,)}


CASES = {
    "llava": Case(model=llava),
    "llava-next": Case(model=llava_next, train=("connector", "arrange", "llm"), peak_lr=1e-2),
    "idefics2": Case(model=idefics2),
    "blip2": Case(model=blip2, steps=60),
    "instructblip": Case(model=instructblip, steps=60),
}
SERVED = ("llava", "llava-next", "idefics2")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FileImage]:
    """Two pictures of different shapes, and features kept for this test alone."""
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    disc = Image.new("RGB", (90, 60), "blue")
    ImageDraw.Draw(disc).ellipse((20, 10, 60, 50), fill="white")
    bars = Image.new("RGB", (50, 70), "black")
    for left in (5, 20, 35):
        ImageDraw.Draw(bars).rectangle((left, 5, left + 8, 60), fill="green")
    for name, picture in zip(ANSWERS, (disc, bars), strict=True):
        picture.save(tmp_path / name)
    return {name: FileImage(root=str(tmp_path), path=name) for name in ANSWERS}


def stage(case: Case, root: Path) -> Stage:
    rows = [
        {
            "id": name,
            "image": name,
            "conversations": [
                {"from": "human", "value": f"<image>\n{QUESTION}"},
                {"from": "gpt", "value": answer},
            ],
        }
        for name, answer in ANSWERS.items()
    ]
    (root / "talks.json").write_text(json.dumps(rows))
    return Stage(
        name="two-pictures",
        model=case.model(root),
        train=case.train,
        data=(Source(of=LlavaFile(path=str(root / "talks.json"), root=str(root))),),
        optimizer=AdamW(peak_lr=case.peak_lr),
        schedule=Cosine(warmup_fraction=0.1),
        batch_size=2,
        steps=case.steps,
    )


def said_by(model: VisionLanguageModel, pictures: dict[str, FileImage]) -> dict[str, str]:
    turn = Turn(role="user", text=f"<image>\n{QUESTION}")
    samples = [Sample(id=name, turns=(turn,), images=(image,)) for name, image in pictures.items()]
    return dict(zip(pictures, model.answer(samples, Generation(max_new_tokens=NEW_TOKENS)), strict=True))


def trained_and_exported(to: str, root: Path, pictures: dict[str, FileImage]) -> Run:
    """The run that learnt the two answers, which it did not know before; its export stands in `root / "out"`."""
    made = stage(CASES[to], root)
    torch.manual_seed(0)
    assert not set(said_by(VisionLanguageModel(made.model), pictures).values()) & set(ANSWERS.values())
    run = train(made, root / "run", progress=False)
    assert said_by(run.load_model(), pictures) == ANSWERS
    export(run, to, root / "out", images=list(pictures.values()))
    certificate = json.loads((root / "out" / CERTIFICATE_FILE).read_text())
    assert certificate["different"] == []
    assert set(ANSWERS.values()) <= {writing.strip() for writing in certificate["writings"]}
    return run


@pytest.mark.long
@pytest.mark.parametrize("to", SERVED)
def test_a_trained_run_answers_over_http(to: str, tmp_path: Path, pictures: dict[str, FileImage]) -> None:
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    trained_and_exported(to, tmp_path, pictures)
    out = tmp_path / "out"
    with served(out) as address:
        said = {name: asked(address, out, tmp_path / name, QUESTION, max_tokens=NEW_TOKENS) for name in ANSWERS}
    assert {name: text.strip() for name, text in said.items()} == ANSWERS


@pytest.mark.long
@pytest.mark.parametrize("to", [name for name in CASES if name not in SERVED])
def test_a_trained_run_answers_in_a_pipeline(to: str, tmp_path: Path, pictures: dict[str, FileImage]) -> None:
    run = trained_and_exported(to, tmp_path, pictures)
    text = prompt_text(run.model_config.prompt, QUESTION, None)
    pipe = transformers.pipeline("image-text-to-text", model=str(tmp_path / "out"), device="cpu")
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    for name, picture in pictures.items():
        said = pipe(images=[picture.load()], text=text, generate_kwargs=options, return_full_text=False)
        assert said[0]["generated_text"].strip() == ANSWERS[name]
