"""Names of models, and loading that refuses what is not exactly right."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from isthmus import weights
from isthmus.weights import folder_hash, load_strict, read_state, read_tokenizer, resolve_model


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("eye", "speaker"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    return tmp_path


def test_names_are_resolved(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model("bundled/eye") == str(bundled / "eye")
    assert resolve_model(str(bundled / "eye")) == str((bundled / "eye").resolve())
    assert resolve_model("openai/clip-vit-large-patch14-336") == "openai/clip-vit-large-patch14-336"
    assert resolve_model("gpt2") == "gpt2"
    monkeypatch.chdir(bundled)
    assert resolve_model("./speaker") == str((bundled / "speaker").resolve())


def test_names_that_lead_nowhere_are_refused(bundled: Path) -> None:
    refused = [
        ("bundled/speeker", r"Did you mean 'bundled/speaker' .*Bundled: bundled/eye, bundled/speaker"),
        ("bundled/../eye", "No bundled model"),
        (str(bundled / "nothing"), "No model folder"),
        ("./nothing", "No model folder"),
        ("", "No model folder"),
        (str(bundled), "holds no config.json"),
    ]
    for name, message in refused:
        with pytest.raises(ValueError, match=message):
            resolve_model(name)


def test_reads_tensors_from_files_and_sharded_folders(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-2.safetensors")
    torch.save({"c": torch.ones(1)}, tmp_path / "old.bin")
    assert sorted(read_state(tmp_path)) == ["a", "b"]
    assert read_state(tmp_path / "model-1.safetensors")["a"].tolist() == [1.0, 1.0]
    assert read_state(tmp_path / "old.bin")["c"].tolist() == [1.0]


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_hostile_and_broken_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.bin").write_bytes(pickle.dumps({"weight": _Evil()}))
    with pytest.raises(ValueError, match="cannot be read without running code"):
        read_state(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()
    save_file({"a": torch.ones(200)}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        read_state(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="No weights file"):
        read_state(tmp_path / "absent.bin")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no weights: .* it has no file at all"):
        read_state(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("not weights")
    with pytest.raises(ValueError, match=r"'.*notes.txt' is no weights file: .*\.safetensors, \.bin"):
        read_state(tmp_path / "notes.txt")
    torch.save([torch.ones(1)], tmp_path / "list.bin")
    with pytest.raises(ValueError, match="plain dictionary of tensors, but it holds list"):
        read_state(tmp_path / "list.bin")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/nothing", r"tokenizer of 'nobody/nothing' is needed.*: no answer\. It is a hub id.*local folder"),
        ("here", r"tokenizer of 'here' is needed.*: no answer\. Save it into that folder"),
        ("nowhere/at/all", "No model folder"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_says_the_way_out(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(source: str, **options: object) -> None:
        raise OSError("no answer.\nSee a page of the library's documentation.")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", unreachable)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=said) as raised:
        read_tokenizer(name)
    assert "\n" not in str(raised.value)


def test_strict_loading_names_every_misfit_and_changes_nothing() -> None:
    module = nn.Linear(2, 3)
    before = module.weight.detach().clone()
    with pytest.raises(ValueError, match="The weights of a test do not fit Linear") as caught:
        load_strict(module, {"weights": torch.ones(3, 2), "bias": torch.ones(4)}, "a test")
    message = str(caught.value)
    assert "1 missing: weight" in message
    assert "1 unknown: weights Did you mean 'weight'?" in message
    assert "bias is (4,), wanted (3,)" in message
    assert torch.equal(module.weight, before)
    load_strict(module, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "a test")
    assert module(torch.ones(2)).tolist() == [2.0, 2.0, 2.0]


def test_the_hash_of_a_folder_follows_its_content_and_not_its_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    first = folder_hash(tmp_path)
    (tmp_path / "README.md").write_text("a card")
    assert folder_hash(tmp_path) == first
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    second = folder_hash(tmp_path)
    assert second != first
    (tmp_path / "config.json").write_text("{} ")
    assert folder_hash(tmp_path) not in (first, second)
    with pytest.raises(ValueError, match="no model to hash"):
        folder_hash(tmp_path / "nothing")
