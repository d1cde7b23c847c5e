"""Recipes of published systems: numbers that define them, and every stage of each tried between the bundled models."""

import json
import math
import shutil
import struct
import wave
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from isthmus.data.frames import UniformFrames
from isthmus.data.sources import (
    Interleaved,
    LlavaFile,
    Source,
    SourceConfig,
    SplitCaptions,
    TextFile,
    WorldCaptions,
)
from isthmus.encoders import AudioEncoder
from isthmus.model import VisionLanguageModel
from isthmus.recipes import RECIPES, instructblip, mm1
from isthmus.recipes.bundled import on_bundled
from isthmus.recipes.provenance import leaves
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.stage import AdamW, Stage
from isthmus.weights import resolve_model

MEDIA = Path(__file__).parent.parent / "data" / "media"
PAPERS = [name for name in RECIPES if name != "quickstart" and "/tiny" not in name]

NUMBERS: dict[str, dict[str, object]] = {
    "blip2/stage2-opt": {"batch_size": 1_920, "steps": 80_000, "schedule.min_fraction": 0.5, "train": ("connector",)},
    "blip2/stage2-opt-lavis": {"epochs": 10.0, "schedule.min_fraction": 0.1, "optimizer.betas": (0.9, 0.999)},
    "blip2/stage2-t5": {"batch_size": 1_520, "model.llm.name": "google/flan-t5-xl", "data.0.of": "SplitCaptions"},
    "blip2/vqa": {"model.encoder.image_size": 490, "optimizer.layer_decay": (("encoder", 0.95),), "batch_size": 128},
    "blip2/caption": {"model.encoder.image_size": 364, "model.prompt.prompt": "a photo of", "batch_size": 256},
    "blip2/retrieval": {"objectives.0.same_image": True, "objectives.1.same_image": True, "batch_size": 224},
    "instructblip/vicuna": {"steps": 60_000, "optimizer.peak_lr": 1e-5, "schedule.warmup_steps": 1_000},
    "instructblip/t5": {"batch_size": 192, "start_from": "blip2/stage2-t5"},
    "llava15-hd/stage2": {"model.encoder.image_size": 224, "model.arrange": "Anyres", "model.arrange.newline": True},
    "llava-next/stage2": {"optimizer.peak_lr": 1e-5, "optimizer.rates": (("encoder", 2e-6),)},
    "deco/stage1": {"model.connector.side": 12, "model.connector.depth": 2},
    "honeybee/stage1": {"steps": 50_000, "optimizer.peak_lr": 3e-4, "model.encoder.layers": (-2,)},
    "honeybee/stage1-released": {"optimizer.peak_lr": 1e-4, "model.encoder.layers": (-1,)},
    "honeybee/stage2": {"steps": 4_000, "batch_size": 128, "schedule.warmup_steps": 150},
    "deepstack/l/stage2": {"model.arrange.groups": 4, "model.arrange.start_layer": 1, "model.arrange.interval": 1},
    "deepstack/v/stage2": {"optimizer.rates": (("encoder", 1e-6),), "train": ("encoder", "connector", "llm")},
    "deepstack/hd/sft": {"model.arrange.every_view": True, "model.encoder.tiles.factor": 2},
    "internvl1/stage2": {"objectives.1.negatives": "given", "objectives.0.gradients": "both"},
    "internvl12/sft": {"model.connector.order": "v1", "batch_size": 512, "optimizer.peak_lr": 1e-5},
    "internvl15/stage1": {"model.encoder.tiles.max_tiles": 12, "model.connector.order": "v2", "batch_size": 2_048},
    "qwen-vl/stage1": {"batch_size": 30_720, "optimizer.betas": (0.9, 0.98), "optimizer.eps": 1e-6},
    "qwen-vl/stage3": {"train": ("connector", "llm"), "model.encoder.image_size": 448},
    "mm1/pretrain": {"data.0.weight": 0.45, "data.1.weight": 0.45, "data.2.weight": 0.10, "batch_size": 512},
    "mm1/sft": {"model.encoder.image_size": 672, "steps": 10_000},
    "video-llama/vision/stage1": {"steps": 12_500, "model.encoder.max_frames": 8, "schedule.min_fraction": 0.8},
    "video-llama/audio/stage2": {"model.audio.connector.num_queries": 8, "schedule.warmup_steps": 400},
    "llava-next-interleave/stage3": {"data.0.of": "Interleaved", "model.encoder.tile_several": False},
}

TRAINED: dict[str, tuple[int, int | None, float, float, float, float | int, tuple[float, ...]]] = {
    "llava15/stage1": (256, None, 1e-3, 0.0, 0.0, 0.03, (1.0,)),
    "llava15/stage2": (128, None, 2e-5, 0.0, 0.0, 0.03, (1.0,)),
    "llava-next/stage2": (128, None, 1e-5, 0.0, 0.0, 0.03, (1.0,)),
    "deepstack/hd/sft": (128, None, 2e-5, 0.0, 0.0, 0.03, (1.0,)),
    "internvl12/sft": (512, None, 1e-5, 0.0, 0.05, 0.03, (1.0,)),
    "internvl15/stage1": (2_048, None, 1e-5, 0.0, 0.05, 100, (0.539, 0.320, 0.089, 0.052)),
    "internvl15/stage2": (1_024, None, 2e-5, 0.0, 0.05, 0.03, (0.5, 0.5)),
    "qwen-vl/stage1": (30_720, 50_000, 2e-4, 1e-6, 0.05, 500, (0.773, 0.227)),
    "qwen-vl/stage2": (4_096, 19_000, 5e-5, 1e-5, 0.05, 400, (19.7, 3.6, 3.5, 8.7, 8.7, 24.8, 7.8)),
    "qwen-vl/stage3": (128, 8_000, 1e-5, 1e-6, 0.05, 3_000, (1.0,)),
    "mm1/pretrain": (512, 200_000, 5.834e-5, 5.834e-6, 0.1, 2_000, (0.45, 0.45, 0.10)),
    "mm1/sft": (256, 10_000, 1e-5, 0.0, 0.0, 0.0, (1.0,)),
    "honeybee/stage1": (256, 50_000, 3e-4, 1e-5, 0.01, 2_000, (1.0, 1.0)),
    "honeybee/stage2": (128, 4_000, 2e-5, 1e-6, 1e-4, 150, (*[10.3] * 7, 7.7, 5.1, 5.1, 5.1, 2.6, 2.6)),
    "honeybee/stage1-released": (256, 50_000, 1e-4, 1e-5, 0.01, 2_000, (1.0, 1.0)),
    "video-llama/vision/stage1": (256, 12_500, 1e-4, 8e-5, 0.05, 2_500, (100.0, 24.0)),
    "video-llama/vision/stage2": (32, 3_000, 3e-5, 1e-5, 0.05, 1_000, (3.0, 150.0, 11.0)),
    "video-llama/audio/stage1": (256, 25_000, 1e-4, 8e-5, 0.05, 5_000, (1.0,)),
    "video-llama/audio/stage2": (32, 3_000, 3e-5, 1e-5, 0.05, 400, (1.0,)),
}
"""Batch, steps (None: one epoch), peak and last rate, decay, warm-up in steps or as a share, weights of the data."""

ALIKE = {
    "llava15-hd/stage1": "llava15/stage1",
    "llava15-hd/stage2": "llava15/stage2",
    "llava-next/stage1": "llava15/stage1",
    "deco/stage1": "llava15/stage1",
    "deco/stage2": "llava15/stage2",
    "deepstack/l/stage1": "llava15/stage1",
    "deepstack/l/stage2": "llava15/stage2",
    "deepstack/v/stage1": "llava15/stage1",
    "deepstack/v/stage2": "llava15/stage2",
    "honeybee/stage2-released": "honeybee/stage2",
    "llava-next-interleave/stage1": "llava15/stage1",
    "llava-next-interleave/stage2": "llava-next/stage2",
    "llava-next-interleave/stage3": "llava-next/stage2",
}
"""Recipes that train with another's numbers."""


@pytest.mark.parametrize("name", {**TRAINED, **ALIKE})
def test_training_of_the_paper_or_its_code(name: str) -> None:
    batch, steps, peak, last, decay, warmup, weights = TRAINED[ALIKE.get(name, name)]
    stage = RECIPES[name]()
    assert (stage.batch_size, stage.steps, stage.epochs) == (batch, steps, 1.0 if steps is None else None)
    rates = (stage.optimizer.peak_lr, stage.optimizer.peak_lr * stage.schedule.min_fraction)
    assert (*rates, stage.optimizer.weight_decay) == pytest.approx((peak, last, decay), rel=1e-3)
    schedule = stage.schedule
    assert (schedule.warmup_fraction if schedule.warmup_steps is None else schedule.warmup_steps) == warmup
    assert tuple(source.weight for source in stage.data) == weights


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_paper_or_its_code(name: str) -> None:
    values = dict(leaves(RECIPES[name]()))
    assert {path: values[path] for path in NUMBERS[name]} == NUMBERS[name]


def test_mm1s_rule_gives_the_rates_that_the_paper_rounds_to() -> None:
    assert [f"{mm1.peak_rate(size):.0e}" for size in (3e9, 7e9, 30e9)] == ["6e-05", "4e-05", "2e-05"]


def test_instructblip_draws_by_the_square_root_of_size() -> None:
    weights = {
        Path(source.of.path).stem: source.weight  # type: ignore[attr-defined]
        for source in instructblip.by_square_root({"small": 100, "large": 10_000})
    }
    assert weights == pytest.approx({"small": 1 / 11, "large": 10 / 11})


def test_every_start_is_a_recipe() -> None:
    starts = {name: RECIPES[name]().start_from for name in PAPERS}
    assert {start for start in starts.values() if start is not None} <= set(RECIPES)


def rates_of(names: list[str]) -> dict[str, float]:
    """What a decay of one half leaves of a rate of 1."""
    parameters = [(name, torch.nn.Parameter(torch.zeros(2, 2))) for name in names]
    groups = AdamW(peak_lr=1.0, layer_decay=(("encoder", 0.5),)).groups(parameters)
    return {name: group["peak_lr"] for group in groups for name in group["names"]}


def test_layer_decay_lowers_the_rates_towards_the_input() -> None:
    names = ["encoder.embeddings.cls", "encoder.layers.0.w", "encoder.layers.1.w", "encoder.norm", "connector.w"]
    assert rates_of(names) == dict(zip(names, [0.125, 0.25, 0.5, 0.5, 1.0], strict=True))
    before = ["encoder.timm_model.cls_token", "encoder.timm_model.norm_pre.w", "encoder.tower.pre_layrnorm.w"]
    assert {name: rates_of([*before, "encoder.blocks.0.norm.w"])[name] for name in before} == dict.fromkeys(
        before, 0.25
    )


def test_layer_decay_follows_the_blocks_of_the_bundled_eye() -> None:
    eye = RECIPES["blip2/tiny-contrast"]().model.encoder.build()
    rates = rates_of([f"encoder.{name}" for name, _ in eye.named_parameters()])
    tower = "encoder.tower."
    for name, rate in rates.items():
        if name.startswith((f"{tower}embeddings.", f"{tower}pre_layrnorm.")):
            assert rate == 0.5**7, name
        elif name.startswith(f"{tower}encoder.layers."):
            assert rate == 0.5 ** (6 - int(name.split(".")[4])), name
        else:
            assert (name.startswith(f"{tower}post_layernorm."), rate) == (True, 0.5)
    assert len(set(rates.values())) == 7


def test_layer_decay_of_what_does_not_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="layer_decay names 'encoder'"):
        AdamW(peak_lr=1.0, layer_decay=(("encoder", 0.5),)).groups([("w", torch.nn.Parameter(torch.zeros(1)))])
    with pytest.raises(ValueError, match="above 0"):
        AdamW(peak_lr=1.0, layer_decay=(("encoder", 0.0),))


def test_captions_are_cut_in_two_at_the_same_place_every_time() -> None:
    inner = WorldCaptions(num_scenes=6)
    whole, cut = inner.build(), SplitCaptions(of=inner).build()
    for index in range(6):
        user, assistant = cut[index].turns
        begun = user.text.removeprefix(whole[index].turns[0].text).strip()
        assert begun
        assert assistant.text
        assert f"{begun} {assistant.text}" == " ".join(whole[index].turns[1].text.split())
        assert cut[index].turns == SplitCaptions(of=inner).build()[index].turns
    assert len({cut[index].turns[1].text.split()[0] for index in range(6)}) > 1


def sounds(folder: Path) -> Source:
    """Two tones with a caption each."""
    rows = []
    for number, pitch in enumerate((200, 400)):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            tone = (int(9_000 * math.sin(2 * math.pi * pitch * t / 16_000)) for t in range(8_000))
            file.writeframes(b"".join(struct.pack("<h", one) for one in tone))
        said = [{"from": "human", "value": "<audio>\nWhat is it?"}, {"from": "gpt", "value": f"A tone of {pitch}."}]
        rows.append({"id": str(number), "audio": f"{number}.wav", "conversations": said})
    (folder / "sounds.json").write_text(json.dumps(rows))
    return Source(of=LlavaFile(path=str(folder / "sounds.json"), root=str(folder)))


def images(folder: Path) -> Source:
    """Pages with two images in one answer, one of them wide."""
    for number, size in enumerate(((96, 96), (200, 96))):
        Image.new("RGB", size, (90, 90 + number, 90)).save(folder / f"{number}.png")
    said = [{"from": "gpt", "value": "First <image> grey, then <image> wide."}]
    (folder / "pages.jsonl").write_text(json.dumps({"id": "0", "image": ["0.png", "1.png"], "conversations": said}))
    return Source(of=LlavaFile(path=str(folder / "pages.jsonl"), root=str(folder)))


def texts(folder: Path) -> Source:
    """Two texts without an image."""
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": f"Line {one}."}) + "\n" for one in "ab"))
    return Source(of=TextFile(path=str(folder / "text.jsonl")))


def media(folder: Path) -> SourceConfig:
    """A question about two images, and one about a video."""
    images(folder)
    rows = []
    for about in ({"image": ["0.png", "1.png"]}, {"video": "classroom.mp4"}):
        marks = "".join(f"<{kind}>\n" * (len(files) if kind == "image" else 1) for kind, files in about.items())
        said = [{"from": "human", "value": f"{marks}What is it?"}, {"from": "gpt", "value": "Grey."}]
        rows.append({"id": str(len(rows)), **about, "conversations": said})
    (folder / "media.json").write_text(json.dumps(rows))
    shutil.copy(MEDIA / "classroom.mp4", folder)
    return LlavaFile(path=str(folder / "media.json"), root=str(folder), frames=UniformFrames(num=3))


@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_fits_the_bundled_models(name: str) -> None:
    model = on_bundled(RECIPES[name]()).model
    model.check()
    if model.audio is not None:
        assert isinstance(model.audio.encoder, AudioEncoder)
        assert (model.audio.encoder.name, model.audio.encoder.window_s) == ("bundled/ear", pytest.approx(1.0, abs=0.05))


def small(stage: Stage, root: Path) -> Stage:
    """The stage on bundled models, two steps of two samples; clips, sounds and several images where it is for them."""
    made = on_bundled(stage, steps=2, batch_size=2)
    data = [
        texts(root) if isinstance(large.of, TextFile) else tiny
        for large, tiny in zip(stage.data, made.data, strict=True)
    ]
    if made.model.audio is not None:
        data = [sounds(root)]
    elif stage.name == "mm1/pretrain":
        data[0] = images(root)
    elif isinstance(mixed := data[0].of, Interleaved):
        data = [replace(data[0], of=replace(mixed, of=media(root)))]
    return replace(made, data=tuple(data), validation=())


KINDS: dict[str, list[list[str]]] = {
    "mm1/pretrain": [["image", "image"], ["image"], []],
    "qwen-vl/stage2": [*[["image"]] * 6, []],
    "video-llama/vision/stage1": [["video"], ["image"]],
    "video-llama/vision/stage2": [["image"], ["image"], ["video"]],
    "video-llama/audio/stage1": [["audio"]],
    "llava-next-interleave/stage3": [["image", "image"]],
}
"""What the first sample of each source of a recipe holds."""


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_data_that_a_recipe_mixes_is_learned_from_in_one_batch(name: str, tmp_path: Path) -> None:
    stage = small(RECIPES[name](), tmp_path)
    sets = [source.of.build() for source in stage.data]
    samples = [one[0] for one in sets]
    assert [[kind for kind, _ in sample.inputs] for sample in samples] == KINDS[name]
    if name == "llava-next-interleave/stage3":
        samples.append(sets[0][1])
        assert [kind for kind, _ in samples[-1].inputs] == ["image"] * 3
    model = VisionLanguageModel(stage.model)
    seen = model.look(samples)
    batch = model.config.batch(
        samples, tokenizer=model.tokenizer, plans=seen.plans, pixels=seen.image.pixels, others=seen.others
    )
    assert all(bool((row != -100).any()) for row in batch.labels)
    loss = model(batch).loss
    loss.backward()
    assert bool(loss.isfinite())


CARRIED = {
    "qwen-vl/stage3": ("encoder.", "encoder."),
    "internvl1/stage2": ("encoder.", "encoder."),
    "internvl1/stage3": ("connector.layers.0.cross.", "connector.layers.0.cross."),
    "video-llama/vision/stage1": ("connector.queries", "connector.image.queries"),
    "video-llama/audio/stage1": ("connector.", "connector."),
}
"""Stages that take over what they do not train: where it stood in the stage before, and where it stands."""


@pytest.mark.long
@pytest.mark.parametrize("last", [name for name in PAPERS if all(RECIPES[one]().start_from != name for one in PAPERS)])
def test_every_stage_of_a_chain_takes_two_steps(last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first stage to `last`, each from the weights of the one before."""
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    assert resolve_model("bundled/eye")
    chain = [last]
    while (start := RECIPES[chain[0]]().start_from) is not None:
        chain.insert(0, start)
    before: Path | None = None
    for name in chain:
        folder = tmp_path / "runs" / name
        run = train(small(RECIPES[name](), tmp_path), folder, start=before, progress=False)
        assert run.result["steps"] == 2
        assert run.result["skipped"] == []
        if name in CARRIED and before is not None:
            old, new = CARRIED[name]
            weights, earlier = run.weights(), Run(before).weights()
            taken = {key: weight for key, weight in weights.items() if key.startswith(new)}
            assert taken
            assert all(torch.equal(weight, earlier[old + key.removeprefix(new)]) for key, weight in taken.items())
        before = folder
