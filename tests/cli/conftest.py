"""Tiny random models for the command line's tests, and a feature cache and run folder of each test's own."""

from pathlib import Path

import pytest
import torch
from tiny_models import save_model
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from isthmus.weights import quiet_transformers


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that put a tiny tower and a tiny language model into any recipe of the bundled models."""
    root = tmp_path_factory.mktemp("cli-models")
    tower = root / "tower"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with quiet_transformers():
        CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tower)
    CLIPImageProcessor().save_pretrained(tower)
    models = ["--model.encoder.name", str(tower), "--model.encoder.image-size", "32"]
    return [*models, "--model.llm.name", save_model("gpt2", root), "--model.llm.max-tokens", "128"]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ISTHMUS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "120")
