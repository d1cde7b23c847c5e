"""Two CPU processes with a copy of the model each, or with it sharded between them, train what one process does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sharded_processes import KINDS, run_job, save_models, stage_of
from test_tiled_training import Sheets
from test_two_processes import launch_program
from tiny_stage import tiny_stage
from tiny_stage1 import tiny_stage1
from torch import Tensor, nn

from isthmus.cli.main import main
from isthmus.model import VisionLanguageModel
from isthmus.recipes import CHAINS
from isthmus.runs import Run
from isthmus.train import checkpoint, freeze, sharding
from isthmus.train.chain import Chain, train_chain
from isthmus.train.loop import train
from isthmus.train.options import RunOptions

RUNS = tuple(kind for kind in KINDS if kind != "watched")


def launch(models: Path, root: Path, *jobs: str) -> None:
    save_models(models)
    launch_program("sharded_processes.py", str(models), str(root), *jobs)


def tensors_of(run: Run) -> dict[str, Tensor]:
    """The weights and the optimizer's state of the last save."""
    saved = checkpoint.latest(run.folder)
    assert saved is not None
    assert set(saved.weights()) == set(run.weights())
    return {**run.weights(), **saved.optimizer()}


def assert_equal_runs(one: Run, two: Run) -> None:
    assert [set(line) for line in one.log()] == [set(line) for line in two.log()]
    for ours, theirs in zip(one.log(), two.log(), strict=True):
        for name, value in ours.items():
            wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-5)
            assert theirs[name] == wanted, (ours["step"], name)
    ours, theirs = tensors_of(one), tensors_of(two)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-5, msg=lambda said, name=name: name + said)


@pytest.mark.long
@pytest.mark.parametrize("how", ["copied", "sharded"])
def test_two_processes_train_what_one_does(root: Path, tmp_path: Path, how: str) -> None:
    launch(root, tmp_path / "two", *(f"{kind}:{how}" for kind in RUNS))
    for kind in RUNS:
        run_job(root, tmp_path / "one", f"{kind}:copied")
        one, two = Run(tmp_path / "one" / kind), Run(tmp_path / "two" / kind)
        assert_equal_runs(one, two)
        start = VisionLanguageModel(one.model_config, with_encoder=False).llm.state_dict()
        moved = [name for name, weight in two.weights().items() if name.startswith("llm.")]
        assert bool(moved) is ("llm" in KINDS[kind])
        if not kind.endswith("lora"):
            assert all(not torch.equal(two.weights()[name], start[name.removeprefix("llm.")]) for name in moved)


@pytest.mark.long
def test_the_doctor_sees_the_same(root: Path, tmp_path: Path) -> None:
    launch(root, tmp_path, "copied/watched:copied", "sharded/watched:sharded")
    one, two = (Run(tmp_path / how / "watched") for how in ("copied", "sharded"))
    assert {"image_gain", "grad_norm llm", "grad_norm connector.project", "doctor"} <= set(two.log()[-2])
    assert_equal_runs(one, two)


@pytest.mark.long
def test_a_run_goes_on_sharded_or_not(root: Path, tmp_path: Path) -> None:
    for job in ("whole/learning:copied", "gathered/learning:copied-stopped"):
        run_job(root, tmp_path, job)
    launch(
        root,
        tmp_path,
        "sharded/learning:sharded-stopped",
        "sharded/learning:sharded-resumed",
        "gathered/learning:sharded-resumed",
        "scattered/learning:sharded-stopped",
        "unbroken/learning:sharded",
    )
    run_job(root, tmp_path, "scattered/learning:copied-resumed")
    whole = Run(tmp_path / "whole" / "learning")
    for way in ("sharded", "gathered", "scattered"):
        assert_equal_runs(whole, Run(tmp_path / way / "learning"))
    unbroken, resumed = (tmp_path / way / "learning" for way in ("unbroken", "sharded"))
    for file in ("log.jsonl", "weights.safetensors", "state/step-00000004/optimizer.safetensors"):
        assert (unbroken / file).read_bytes() == (resumed / file).read_bytes(), file


@pytest.mark.long
def test_a_process_holds_its_half_of_every_layer(root: Path, tmp_path: Path) -> None:
    """Three layers and the output head of Llama; of Qwen2, whose head is its embedding table, the layers alone."""
    launch(root, tmp_path, "learning:parts", "tied:parts")
    for kind, parts in (("learning", 4), ("tied", 3)):
        for rank in range(2):
            told = json.loads((tmp_path / f"{kind}-{rank}.json").read_text())
            assert told["count"] == parts
            cut = {name for name, share in told["shares"].items() if share == 0.5}
            assert cut == {name for name in told["shares"] if ".layers." in name or "lm_head" in name}
            assert all(share == 1.0 for name, share in told["shares"].items() if name not in cut)


def test_one_process_and_models_without_a_language_model_are_refused(root: Path, tmp_path: Path) -> None:
    stage, alone = tiny_stage(root), tiny_stage1(root)
    with pytest.raises(ValueError, match=r"several processes, and there is one.*torchrun"):
        train(stage, tmp_path / "run", progress=False, options=RunOptions(shard=True))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="'tiny1' has none"):
        sharding.check(alone, 2)
    chain = Chain(name="two", stages=(stage, replace(stage, name="later", start_from="tiny")))
    with pytest.raises(ValueError, match="several processes"):
        train_chain(chain, tmp_path / "chain", progress=False, options=RunOptions(shard=True))
    assert not (tmp_path / "chain").exists()


def gradients(model: VisionLanguageModel, views: Sequence[int], *, blind: bool = False) -> dict[str, Tensor]:
    dataset = Sheets().build()
    samples = [dataset[index] for index in views]
    pixels, plans = model.prepare(samples)
    assert pixels is not None
    pixels = torch.zeros_like(pixels) if blind else pixels
    batch = model.config.batch(samples, tokenizer=model.llm.tokenizer, plans=plans, pixels=pixels)
    model.zero_grad()
    model(batch).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def test_lora_learns_behind_the_door_and_additions_count(root: Path) -> None:
    """Adapters get gradient, the weights beside them none, and the connector's comes through the added tokens too."""
    torch.manual_seed(0)
    model = VisionLanguageModel(stage_of(root, "deep-lora").model)
    freeze.apply(model, ("connector", "llm"))
    for name, one in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(one, std=0.2)
    found = gradients(model, (1, 2))
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    assert set(found) == learning
    assert all("lora_" in name for name in learning if name.startswith("llm."))
    assert all(bool(one.any()) for one in found.values())
    model._open_door = lambda batch, placed: model.llm.add_to_layers(None, len(batch.ids))  # type: ignore[method-assign]
    shut = gradients(model, (1, 2))
    for name in ("connector.project.0.weight", next(name for name in found if "lora_B" in name)):
        assert not torch.allclose(shut[name], found[name], rtol=1e-2)


def test_groups_are_parted_by_kind_alone() -> None:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.AdamW([{"params": weights, "names": ["a", "b", "c"], "peak_lr": 0.1}], fused=True)
    sharding.part_groups(optimizer)
    assert [group["names"] for group in optimizer.param_groups] == [["a", "b", "c"]]


@pytest.mark.parametrize("name", ["quickstart", next(iter(CHAINS))])
def test_the_command_passes_it_on(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", name, "--shard", "--out", str(tmp_path / "run")]) == 2
    assert "Sharding shares a model among several processes, and there is one." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
