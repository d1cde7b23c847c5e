"""The numbers of BLIP-2's first stage, and the tiny one trained from the command line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_reader import SIZES, save_reader

from isthmus.cli.main import main
from isthmus.features import FeatureShape, Grid
from isthmus.recipes import blip2
from isthmus.recipes.provenance import leaves
from isthmus.runs import Run

VIT_G = FeatureShape(width=1_408, grid=Grid(1, 16, 16), prefix=1)


def test_stage1_has_the_papers_numbers() -> None:
    values = dict(leaves(blip2.stage1()))
    wanted = {
        "model.llm": None,
        "model.encoder.class_token": True,
        "model.encoder.image_size": 224,
        "model.connector.num_queries": 32,
        "model.captions.max_tokens": 32,
        "train": ("connector",),
        "objectives.0": "ITC",
        "objectives.0.label_smoothing": 0.1,
        "objectives.0.gradients": "local",
        "objectives.1": "ITM",
        "objectives.1.negatives": "hard",
        "objectives.2": "ITG",
        "objectives.2.label_smoothing": 0.1,
        "batch_size": 1_680,
        "steps": 250_000,
        "optimizer.betas": (0.9, 0.98),
        "optimizer.weight_decay": 0.05,
        "optimizer.peak_lr": 1e-4,
        "schedule.warmup_steps": 2_000,
    }
    assert {path: values[path] for path in wanted} == wanted


def test_the_released_configuration_differs_where_it_says() -> None:
    paper, released = (dict(leaves(stage)) for stage in (blip2.stage1(), blip2.stage1_lavis()))
    changed = {path: released[path] for path in released if paper.get(path) != released[path] and "data" not in path}
    assert changed == {
        "name": "blip2/stage1-lavis",
        "optimizer.betas": (0.9, 0.999),
        "schedule.warmup_steps": 5_000,
        "schedule.min_fraction": 0.1,
        "batch_size": 1_600,
        "epochs": 10.0,
        "steps": None,
    }


def test_the_qformer_of_stage1_has_its_published_size() -> None:
    config = replace(blip2.stage1().model.connector, start_from=None)
    with torch.device("meta"):
        module = config.build_alone(VIT_G)
    total = sum(weight.numel() for weight in module.parameters())
    heads = sum(
        weight.numel() for name in ("image", "text", "match") for weight in getattr(module.heads, name).parameters()
    )
    assert heads == 395_266
    # 186.31M with writer and queries; ln_vision and the temperature stand outside that count
    assert round((total - heads - 2 * 1_408 - 1) / 1e6, 2) == 186.31


def test_the_tiny_stage_trains_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    reader = save_reader(tmp_path)
    small = {
        "start_from": reader, "width": SIZES["hidden_size"], "layers": SIZES["num_hidden_layers"],
        "heads": SIZES["num_attention_heads"], "ffn_width": SIZES["intermediate_size"], "positions": 64,
    }  # fmt: skip
    fields = [part for name, value in small.items() for part in (f"--model.connector.{name}", str(value))]
    more = ["--steps", "4", "--batch-size", "4", "--log-every", "2", "--validate-every", "4", "--save-every", "4"]
    more += ["--data.0.of.num-scenes", "16", "--validation.0.of.num-scenes", "4", "--start-from", "None"]
    main(["train", "blip2/tiny-stage1", "--out", str(tmp_path / "run"), *fields, *more])
    said = capsys.readouterr().out
    assert "Finished blip2/tiny-stage1: 4 steps" in said
    assert "isthmus evaluate" in said
    run = Run(tmp_path / "run")
    assert {"itc", "itm", "itg"} <= set(run.log()[1])
    assert run.result["steps"] == 4
    assert main(["evaluate", str(tmp_path / "run"), "--num", "4"]) == 0
    assert "4 images" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--tasks", "world/count"]) == 2
    assert "answers no tasks" in capsys.readouterr().err
