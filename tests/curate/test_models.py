"""Captioners and rankers on tiny models, each against the same computed alone, and the command from end to end."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tiny_models import byte_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
sys.path.insert(0, str(Path(__file__).parents[1] / "exchange"))

import tiny_natives
from tiny_stage import tiny_stage
from tiny_stage1 import tiny_stage1

from isthmus.cli.main import MISTAKE, main
from isthmus.curate import AlignedRun, AnsweringRun, DualEncoder, FolderCaptioner, RunCaptioner, pictures_in
from isthmus.curate.rankers import LEAST, find_ranker
from isthmus.curate.seeing import asked
from isthmus.data.captions import captions_of
from isthmus.data.sample import ImageRef
from isthmus.llms import Generation
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.objectives import ITC
from isthmus.weights import quiet_transformers

TEXTS, OWNERS = ["red", "  ", "a green one", "red", "blue"], [0, 0, 1, 2, 2]
DRAWN = Generation(max_new_tokens=4, do_sample=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curate")
    (root / "images").mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        image = Image.new("RGB", (24, 20), colour)
        image.paste("white", (number * 5, 2, number * 5 + 8, 12))
        image.save(root / "images" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(root / "cache"))
        train(tiny_stage(root, steps=1, validation=()), root / "chat", progress=False)
        train(tiny_stage1(root, steps=1, validation=()), root / "aligned", progress=False)
        train(tiny_stage1(root, steps=1, validation=(), objectives=(ITC(),)), root / "compared", progress=False)
    return root


@pytest.fixture(scope="module")
def images(root: Path) -> list[ImageRef]:
    return [one.image for one in pictures_in(root / "images")]


@pytest.fixture(scope="module")
def dual(root: Path) -> str:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = transformers.CLIPConfig(
        text_config={**sizes, "num_attention_heads": 2, "vocab_size": 260, "max_position_embeddings": 16},
        vision_config={**sizes, "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    with quiet_transformers():
        transformers.CLIPModel(config).save_pretrained(root / "clip")
    byte_tokenizer().save_pretrained(root / "clip")
    about = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16}
    (root / "clip" / "preprocessor_config.json").write_text(json.dumps(about))
    return str(root / "clip")


def test_a_run_writes_what_it_answers_alone(root: Path, images: list[ImageRef]) -> None:
    writer = RunCaptioner(Run(root / "chat"), Generation(max_new_tokens=5), prompt="What is it?")
    written = writer.caption(images, 2)
    alone = writer.model.answer([asked(image, "What is it?") for image in images], Generation(max_new_tokens=5))
    assert written == [[text, text] for text in alone]
    drawn = RunCaptioner(Run(root / "chat"), DRAWN)
    torch.manual_seed(0)
    first = drawn.caption(images, 3)
    assert len({text for some in first for text in some}) > 3
    torch.manual_seed(0)
    assert drawn.caption(images, 3) == first
    with pytest.raises(ValueError, match="no language model to write"):
        RunCaptioner(Run(root / "aligned"), DRAWN)


def test_a_captioner_of_transformers_writes(root: Path, images: list[ImageRef]) -> None:
    folder = root / "llava"
    tiny_natives.make(
        "LlavaForConditionalGeneration", tiny_natives.llava(tiny_natives.clip(), tiny_natives.llama()), folder
    )
    about = {"processor_class": "LlavaProcessor", "patch_size": 4, "vision_feature_select_strategy": "default"}
    about |= {"image_token": "<image>", "num_additional_image_tokens": 1}
    (folder / "processor_config.json").write_text(json.dumps(about))
    writer = FolderCaptioner(str(folder), DRAWN, prompt="<image>\nsay")
    torch.manual_seed(0)
    written = writer.caption(images[:2], 3)
    assert [len(some) for some in written] == [3, 3]
    assert not any("say" in text for some in written for text in some)


@pytest.mark.parametrize("kind", ["aligned", "compared"])
def test_a_first_stage_scores_as_each_pair_alone(root: Path, images: list[ImageRef], kind: str) -> None:
    ranker = AlignedRun(Run(root / kind))
    assert ranker.judges == (kind == "aligned")
    scores = ranker.scores(images, TEXTS, OWNERS)
    assert scores[1] == LEAST
    model = ranker.model
    for place in (0, 2, 3, 4):
        sample = asked(images[OWNERS[place]], "", TEXTS[place])
        captions, _ = captions_of([sample], tokenizer=model.tokenizer, style=model.config.captions, form="bert")
        pixels, _ = model.prepare([sample])
        with torch.inference_mode():
            reading = model.connector.reading(model.encoder(pixels), captions)
            if kind == "aligned":
                wanted = reading.match(captions.match, [0], None).softmax(dim=1)[0, 1]
            else:
                wanted = (reading.images("queries")[0] @ reading.texts()[0]).max()
        assert scores[place] == pytest.approx(float(wanted), abs=1e-5)


def test_an_imported_first_stage_judges_with_the_heads_it_came_with(
    root: Path, images: list[ImageRef], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(root / "aligned", tmp_path / "imported"))
    told = json.loads((folder / "stage.json").read_text())
    kept = {name: told["stage"][name] for name in ("type", "name", "model")}
    (folder / "stage.json").write_text(json.dumps({**told, "imported_from": "a checkpoint", "stage": kept}))
    ranker = AlignedRun(Run(folder))
    assert ranker.judges
    assert ranker.scores(images, TEXTS, OWNERS) == AlignedRun(Run(root / "aligned")).scores(images, TEXTS, OWNERS)


def test_an_answering_run_scores_by_what_the_image_adds(root: Path, images: list[ImageRef]) -> None:
    ranker = find_ranker(str(root / "chat"), prompt="", device="cpu")
    assert isinstance(ranker, AnsweringRun)
    scores = ranker.scores(images, TEXTS, OWNERS)
    assert scores[1] == LEAST
    assert len({round(score, 6) for score in scores}) == 5
    assert ranker.scores(images, TEXTS[2:3], OWNERS[2:3])[0] == pytest.approx(scores[2], abs=1e-4)


def test_a_dual_encoder_scores_by_cosine(dual: str, images: list[ImageRef], root: Path) -> None:
    ranker = find_ranker(dual, prompt="", device="cpu")
    assert isinstance(ranker, DualEncoder)
    texts = [text for text in TEXTS if text.strip()]
    scores = ranker.scores(images, texts, [0, 1, 2, 2])
    model = transformers.CLIPModel.from_pretrained(dual).eval()
    with torch.no_grad():
        output = model(
            pixel_values=ranker.processor([images[1].load()], return_tensors="pt")["pixel_values"],
            **ranker.tokenizer([texts[1]], return_tensors="pt"),
        )
        wanted = output.logits_per_image / model.logit_scale.exp()
    assert scores[1] == pytest.approx(float(wanted), abs=1e-5)
    with pytest.raises(ValueError, match="no dual encoder"):
        DualEncoder(str(next(root.glob("eye"))))


def test_the_command_curates_and_trains_on_it(
    root: Path, dual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--captioner", str(root / "chat"), "--max-new-tokens", "4", "--candidates", "2"]
    for name, ranker in (("a", str(root / "aligned")), ("b", dual)):
        given = ["curate", str(root / "images"), "--out", str(tmp_path / name), *models, "--ranker", ranker]
        assert main(given) == 0
        said = capsys.readouterr().out
        assert "Kept 3 captions of 3 images" in said
        assert f"--data.0.of.root {root / 'images'}" in said
        assert (tmp_path / name / "report.html").is_file()
    assert main([*given, "--keep", "2"]) == MISTAKE
    assert "another curation" in capsys.readouterr().err
