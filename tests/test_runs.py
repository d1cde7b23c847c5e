"""Run folders, read back: names, models, weights, logs, and what is refused."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from isthmus.model import Model
from isthmus.runs import Run, find_run, load_trained, new_run_folder, read_lines, runs_in, runs_root, saveable


@dataclass(frozen=True, kw_only=True)
class FakeModel(Model):
    """A model that says its fingerprint without reading weights."""

    told: str

    def fingerprint(self) -> str:
        return self.told


def write_run(folder: Path, name: str, fingerprint: str = "f", *, finished: bool = True) -> Run:
    folder.mkdir(parents=True)
    begun = {"model_fingerprint": fingerprint, "stage": {"name": name, "model": {"type": "Nothing"}}}
    (folder / "stage.json").write_text(json.dumps(begun))
    if finished:
        (folder / "finished.json").write_text('{"steps": 3, "validation_loss": null, "best": null}')
    return Run(folder)


def find(name: str, fingerprint: str, root: Path) -> Run:
    return find_run(name, FakeModel(told=fingerprint), root)


def test_the_root_is_the_environments_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("ISTHMUS_RUNS", "elsewhere")
    assert runs_root() == Path("elsewhere")


def test_new_folders_are_numbered(tmp_path: Path) -> None:
    assert new_run_folder("llava15/stage1", tmp_path) == tmp_path / "llava15" / "stage1" / "001"
    write_run(tmp_path / "llava15" / "stage1" / "007", "llava15/stage1")
    assert new_run_folder("llava15/stage1", tmp_path).name == "008"
    assert [run.folder.name for run in runs_in(tmp_path)] == ["007"]


def test_the_latest_finished_run_with_an_equal_model_is_found(tmp_path: Path) -> None:
    for number, (fingerprint, finished) in enumerate([("f", True), ("f", True), ("g", True), ("f", False)]):
        run = write_run(tmp_path / f"{number}", "stage1", fingerprint, finished=finished)
        if finished:
            os.utime(run.folder / "finished.json", (number, number))
    assert find("stage1", "f", tmp_path).folder.name == "1"
    with pytest.raises(ValueError, match=r"No run of 'stage2' in .* Did you mean 'stage1'"):
        find("stage2", "f", tmp_path)
    with pytest.raises(ValueError, match=r"none is finished with an equal model: .*another model.*unfinished"):
        find("stage1", "h", tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a run folder: it has no stage\.json"):
        Run(tmp_path)
    for text, said in [("{", "not valid JSON"), ("[]", "must hold a JSON object"), ("{}", "not a stage file")]:
        (tmp_path / "stage.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            Run(tmp_path)


def test_a_hostile_stage_file_can_make_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "x")
    with pytest.raises(ValueError, match="Unknown config type 'Nothing'"):
        _ = run.model_config
    run.stage_json["stage"]["model"] = {"type": "Concatenate"}
    with pytest.raises(ValueError, match="Concatenate where a Model belongs"):
        _ = run.model_config


def test_results_and_weights_only_where_there_are_some(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "x", finished=False)
    assert not run.finished
    with pytest.raises(ValueError, match="is not finished"):
        _ = run.result
    with pytest.raises(ValueError, match=r"has no weights\.safetensors"):
        run.weights()
    save_file({"connector.weight": torch.ones(2)}, run.folder / "weights.safetensors")
    assert run.weights()["connector.weight"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"has no best\.safetensors"):
        run.weights("best")


def test_lines_leave_out_a_half_written_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def parts() -> nn.ModuleDict:
    return nn.ModuleDict({"connector": nn.Linear(2, 1, bias=False), "llm": nn.Linear(1, 1, bias=False)})


def test_trained_weights_go_to_their_places() -> None:
    model = parts()
    frozen = model["llm"].weight.detach().clone()
    names = load_trained(model, {"connector.weight": torch.tensor([[3.0, 4.0]])}, source="a run")
    assert names == {"connector.weight"}
    assert model["connector"].weight.tolist() == [[3.0, 4.0]]
    assert torch.equal(model["llm"].weight, frozen)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"connector.weight": torch.ones(1, 2), "extra": torch.ones(1)}, r"unknown \['extra'\]"),
        ({}, r"missing \['connector\.weight'\]"),
        ({"connector.weight": torch.ones(2, 2)}, r"connector\.weight is \(2, 2\), wanted \(1, 2\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(tensors: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_trained(parts(), tensors, source="a run")


def test_a_tied_weight_is_saved_once_and_passing_buffers_not_at_all() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False), "norm": nn.BatchNorm1d(2)})
    model["head"].weight = model["table"].weight
    model.register_buffer("passing", torch.zeros(1), persistent=False)
    assert set(saveable(model)) == {
        "table.weight",
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }
