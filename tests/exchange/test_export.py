"""Runs go out as native folders that open without our code, and are refused when the class would say something else."""

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
from safetensors.torch import load_file, save_file

from isthmus.adapters import MARK, Lora
from isthmus.data.images import FileImage
from isthmus.data.prompts import Bounded, Plain, PromptStyle, QuestionAnswer, Vicuna
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import VisionEncoder
from isthmus.exchange import export, find_goal, import_native, processors
from isthmus.exchange.asking import PIXEL_TOLERANCES, Asker, PixelGap
from isthmus.exchange.certificate import CERTIFICATE_FILE
from isthmus.exchange.folders import write_run
from isthmus.exchange.processors import image_backend
from isthmus.llms import Generation
from isthmus.model import Model, VisionLanguageModel
from isthmus.recipes import RECIPES
from isthmus.runs import Run

BOUNDED = Bounded(style=QuestionAnswer(), before="<unk>", after="<unk>")
CASES: dict[str, tuple[str, str, Any, PromptStyle | None]] = {
    "llava": ("llava", "LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), Vicuna()),
    "llava-siglip": (
        "llava",
        "LlavaForConditionalGeneration",
        tiny.llava(tiny.siglip(), tiny.llama(tie_word_embeddings=True), strategy="full"),
        QuestionAnswer(),
    ),
    "llava-plain": ("llava", "LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama(), layer=-1), Plain()),
    "llava-next": ("llava-next", "LlavaNextForConditionalGeneration", tiny.llava_next(), Vicuna()),
    "blip2-opt": ("blip2", "Blip2ForConditionalGeneration", tiny.blip2(tiny.opt()), None),
    "blip2-t5": ("blip2", "Blip2ForConditionalGeneration", tiny.blip2(tiny.t5()), None),
    "instructblip": ("instructblip", "InstructBlipForConditionalGeneration", tiny.instructblip(tiny.opt()), None),
    "internvl": ("internvl", "InternVLForConditionalGeneration", tiny.internvl(), QuestionAnswer()),
    "idefics2": ("idefics2", "Idefics2ForConditionalGeneration", tiny.idefics2(), BOUNDED),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[FileImage]:
    """Pictures of three shapes."""
    root = tmp_path_factory.mktemp("images")
    for number, (width, height) in enumerate([(16, 16), (40, 25), (20, 61)]):
        values = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).save(root / f"{number}.png")
    return [FileImage(root=str(root), path=f"{number}.png") for number in range(3)]


def imported(case: str, root: Path) -> Run:
    _, name, config, prompt = CASES[case]
    tiny.make(name, config, root / "native")
    return import_native(root / "native", root / "run", prompt=prompt).run


def answered(run: Run, image: FileImage) -> str:
    """The run's own greedy answer of four tokens."""
    sample = Sample(id="a", turns=(Turn(role="user", text="<image>\nWhat?"),), images=(image,))
    return run.load_model().answer([sample], Generation(max_new_tokens=4))[0]


@pytest.mark.parametrize("case", list(CASES))
def test_a_run_goes_out_and_opens_without_our_code(case: str, tmp_path: Path, images: list[FileImage]) -> None:
    out = export(imported(case, tmp_path), CASES[case][0], tmp_path / "out", images=images)
    said = json.loads((tmp_path / "out" / CERTIFICATE_FILE).read_text())
    assert said["different"] == []
    assert said["logit_difference"] <= 1e-5 * max(1.0, said["largest_logit"])
    assert said["largest_logit"] > 0.1
    assert said["image_backend"] == image_backend()
    if "pixels" in said["compared"]:
        assert PixelGap(**said["pixel_gap"]).within(PIXEL_TOLERANCES[image_backend()])
    else:
        assert said["pixel_gap"] is None
    assert len(said["images"]) == 3
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out").state_dict()
    native = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "native").state_dict()
    kept = [key for key in again if "post_layernorm" not in key]
    assert kept
    for key in kept:
        rows = len(native[key]) if native[key].dim() else None  # Idefics2's processor adds a token
        torch.testing.assert_close(again[key][:rows] if rows else again[key], native[key], atol=0, rtol=0, msg=key)
    if case == "internvl" and image_backend() == "PIL":
        assert "torchvision" in " ".join(out.notes)
        pytest.skip("the processor of InternVL needs torchvision: weights, logits and writings were compared")
    transformers.AutoProcessor.from_pretrained(tmp_path / "out")


def test_the_pipeline_answers_a_chat(tmp_path: Path, images: list[FileImage]) -> None:
    run = imported("llava", tmp_path)
    export(run, "llava", tmp_path / "out", images=images)
    pipe = transformers.pipeline("image-text-to-text", model=str(tmp_path / "out"), device="cpu")
    chat = [
        {"role": "user", "content": [{"type": "image", "image": images[1].load()}, {"type": "text", "text": "What?"}]}
    ]
    said = pipe(text=chat, generate_kwargs={"max_new_tokens": 4, "do_sample": False}, return_full_text=False)
    assert said[0]["generated_text"].strip() == answered(run, images[1])


def test_the_pipeline_answers_a_soft_prompt(tmp_path: Path, images: list[FileImage]) -> None:
    run = imported("blip2-opt", tmp_path)
    export(run, "blip2", tmp_path / "out", images=images)
    pipe = transformers.pipeline("image-text-to-text", model=str(tmp_path / "out"), device="cpu")
    text = "Question: What? Answer:"
    options = {"max_new_tokens": 4, "do_sample": False}
    said = pipe(images=[images[1].load()], text=text, generate_kwargs=options, return_full_text=False)
    assert said[0]["generated_text"].strip() == answered(run, images[1])


@pytest.mark.parametrize("name", ["instructblip/vicuna", "instructblip/t5"])
def test_the_recipes_of_instructblip_have_a_class(name: str, tmp_path: Path) -> None:
    model, recipe = imported("instructblip", tmp_path).model_config, RECIPES[name]().model
    assert model.prompt == recipe.prompt
    assert (model.placement, type(model.connector)) == (recipe.placement, type(recipe.connector))
    assert find_goal("instructblip", model).class_name == "InstructBlipForConditionalGeneration"
    assert find_goal("instructblip", replace(model, prompt=QuestionAnswer(question="{}")))
    for other in (QuestionAnswer(after_images=""), QuestionAnswer(question="{}", after_images="Look:"), Vicuna()):
        with pytest.raises(ValueError, match="has to be the question alone"):
            find_goal("instructblip", replace(model, prompt=other))


def test_the_image_token_gets_room_and_is_never_written(tmp_path: Path, images: list[FileImage]) -> None:
    model = Model()
    torch.manual_seed(0)
    made = VisionLanguageModel(model, with_encoder=False)
    tensors = {f"connector.{key}": value for key, value in made.connector.state_dict().items()}
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", name="default", model=model, tensors=tensors, origin="a test")
    export(Run(tmp_path / "run"), "llava", tmp_path / "out", images=images[1:2])
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    weights = load_file(tmp_path / "out" / "model.safetensors")
    table = next(value for key, value in weights.items() if key.endswith("embed_tokens.weight"))
    assert len(table) == made.llm.head.weight.shape[0] + 1
    assert said["suppress_tokens"] == [len(table) - 1]
    torch.testing.assert_close(table[-1], table[:-1].mean(dim=0))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["image_token_index"] == len(table) - 1


@pytest.mark.parametrize("layer", [-1, -2])
def test_a_tower_with_its_last_norm_goes_out_with_the_norm_in_the_projector(
    layer: int, tmp_path: Path, images: list[FileImage]
) -> None:
    before = imported("llava", tmp_path)
    encoder = before.model_config.encoder
    assert isinstance(encoder, VisionEncoder)
    normed = replace(before.model_config, encoder=replace(encoder, layers=(layer,), final_norm=True))
    (tmp_path / "normed").mkdir()
    write_run(tmp_path / "normed", name="normed", model=normed, tensors=before.weights(), origin="a test")
    run = Run(tmp_path / "normed")
    with pytest.raises(ValueError, match=r"final_norm=False\)\. It can go out as 'vipllava'"):
        export(run, "llava", tmp_path / "out", images=images)
    export(run, "vipllava", tmp_path / "out", images=images)
    said = json.loads((tmp_path / "out" / CERTIFICATE_FILE).read_text())
    assert said["different"] == []
    assert said["compared"] == ["ids", "logits", "writings", "pixels", "batches"]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    whole = load_file(tmp_path / "native" / "model.safetensors")
    for kind in ("weight", "bias"):
        (norm,) = (value for key, value in whole.items() if key.endswith(f"post_layernorm.{kind}"))
        (moved,) = (value for key, value in weights.items() if key.endswith(f"projector_layernorm.{kind}"))
        torch.testing.assert_close(moved, norm)


def test_the_first_recipe_has_a_class() -> None:
    assert find_goal("vipllava", RECIPES["quickstart"]().model).class_name == "VipLlavaForConditionalGeneration"


@pytest.mark.parametrize(("part", "layers"), [("llm", 14), ("encoder", 12)])
def test_adapters_are_merged(part: str, layers: int, tmp_path: Path, images: list[FileImage]) -> None:
    plain = imported("llava", tmp_path)
    config = plain.model_config
    adapted = replace(config, **{part: replace(getattr(config, part), lora=Lora(rank=2))})
    model = VisionLanguageModel(adapted)
    tensors = dict(plain.weights())
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if MARK in name:
            tensors[name] = 0.3 * torch.randn_like(weight)
    (tmp_path / "adapted").mkdir()
    write_run(tmp_path / "adapted", name="adapted", model=adapted, tensors=tensors, origin="a test")
    export(Run(tmp_path / "adapted"), "llava", tmp_path / "out", images=images[:1])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert not [name for name in weights if "lora" in name or "base_layer" in name]
    before = load_file(tmp_path / "native" / "model.safetensors")
    changed = [name for name in weights if "layernorm" not in name and not torch.equal(weights[name], before[name])]
    assert len(changed) == layers
    assert all(("vision" in name) == (part == "encoder") for name in changed)


def test_a_class_that_says_something_else_is_refused(
    tmp_path: Path, images: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = imported("llava", tmp_path)

    def spoiled(path: Path, class_name: str) -> Any:
        native = getattr(transformers, class_name).from_pretrained(path).eval()
        native.model.multi_modal_projector.linear_2.bias.data += 5.0
        return native

    monkeypatch.setattr("isthmus.exchange.exporting.load_native", spoiled)
    with pytest.raises(ValueError, match="logits differ by"):
        export(run, "llava", tmp_path / "out", images=images)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_models_are_compared_on_the_pixels_of_the_processor(
    tmp_path: Path, images: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, made = imported("llava", tmp_path), Asker.inputs
    level = 1 / 255 / torch.tensor(tiny.PREPROCESSOR["image_std"])[:, None, None]

    def rounded(asker: Asker, samples: list[Sample]) -> dict[str, torch.Tensor]:
        given = made(asker, samples)
        given["pixel_values"][..., ::4] += 0.9 * level
        return given

    monkeypatch.setattr(Asker, "inputs", rounded)
    monkeypatch.setattr("isthmus.exchange.exporting.image_backend", lambda: "PIL")
    with pytest.raises(ValueError, match=r"0\.2.* apart on average .* where PIL may round by 0\.01 and 0\.01"):
        export(run, "llava", tmp_path / "out", images=images[:2])
    monkeypatch.setattr("isthmus.exchange.exporting.image_backend", lambda: "torchvision")
    export(run, "llava", tmp_path / "out", images=images[:2])
    said = json.loads((tmp_path / "out" / CERTIFICATE_FILE).read_text())
    assert (said["different"], said["image_backend"]) == ([], "torchvision")
    assert said["logit_difference"] <= 1e-5 * said["largest_logit"]
    assert 0.2 < said["pixel_gap"]["mean"] < 0.3
    assert 0.89 < said["pixel_gap"]["largest"] < 2


@pytest.mark.parametrize(
    "changed", [{"resample": 2}, {"image_mean": [0.5, 0.4, 0.33]}, {"size": {"shortest_edge": 16}, "do_pad": False}]
)
def test_a_processor_with_other_pixels_is_refused(
    changed: dict[str, Any], tmp_path: Path, images: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = imported("llava", tmp_path)
    made = processors._image_options
    crop = {"do_center_crop": True} if "size" in changed else {}
    monkeypatch.setattr(processors, "_image_options", lambda tower: made(tower) | changed | crop)
    monkeypatch.setattr("isthmus.exchange.exporting.image_backend", lambda: "torchvision")  # the wider tolerance
    with pytest.raises(ValueError, match="of 255 grey levels they are") as refused:
        export(run, "llava", tmp_path / "out", images=images[1:])
    assert float(str(refused.value).split("they are ")[1].split()[0]) > 0.5
    assert not (tmp_path / "out").exists()


def test_a_processor_with_pixels_of_another_shape_is_refused(
    tmp_path: Path, images: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, made = imported("llava", tmp_path), processors._image_options
    wider = {"size": {"height": 16, "width": 20}}
    monkeypatch.setattr(processors, "_image_options", lambda tower: made(tower) | wider)
    with pytest.raises(ValueError, match=r"pixels \(1, 3, 16, 20\) .* encoder \(1, 3, 16, 16\)"):
        export(run, "llava", tmp_path / "out", images=images)


def test_export_needs_an_image_and_a_new_folder(tmp_path: Path, images: list[FileImage]) -> None:
    run = imported("llava", tmp_path)
    with pytest.raises(ValueError, match="needs one or more"):
        export(run, "llava", tmp_path / "out", images=[])
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="is there already"):
        export(run, "llava", tmp_path / "out", images=images)


def test_unknown_missing_and_misshapen_weights_are_refused_by_name(tmp_path: Path) -> None:
    tiny.make("LlavaForConditionalGeneration", tiny.llava(tiny.clip(), tiny.llama()), tmp_path / "native")
    file = tmp_path / "native" / "model.safetensors"
    good = load_file(file)
    key = next(name for name in good if name.endswith("linear_1.weight"))
    for name, state in {
        "missing: .*linear_1.weight": {one: value for one, value in good.items() if one != key},
        "unknown: .*linear_9.weight": good | {key.replace("linear_1", "linear_9"): good[key].clone()},
        "of another shape: .*linear_1.weight": good | {key: torch.zeros(3, 3)},
    }.items():
        save_file(state, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=name):
            import_native(tmp_path / "native", tmp_path / "run")
    assert not (tmp_path / "run").exists()
