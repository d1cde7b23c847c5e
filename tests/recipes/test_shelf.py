"""Every connector by its name alone between the bundled eye and speaker: as an arm, and through the command line."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.cli.main import main
from isthmus.compare.results import read_jobs
from isthmus.compare.run import RESULTS_FILE
from isthmus.compare.study import TEXT_ONLY
from isthmus.connectors import CONNECTORS
from isthmus.data.sources import Source, WorldChat
from isthmus.measure import cost
from isthmus.recipes.shelf import NEEDS, SIZED, arm, with_connectors
from isthmus.recipes.studies import readme, shelf
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.stage import Stage

PER_PATCH = {"identity", "linear", "mlp", "channel-concat", "honeybee-mlp"}


def test_every_connector_is_an_arm_under_its_name() -> None:
    study = shelf()
    assert [one.name for one in study.arms] == list(CONNECTORS)
    for name, stage in study.stages().items():
        if name != TEXT_ONLY:
            assert type(stage.model.connector) is CONNECTORS[name]
    assert set(NEEDS) <= set(SIZED) <= set(CONNECTORS)


def test_arms_differ_in_what_they_need_alone() -> None:
    study = shelf()
    base = study.base
    for one in study.arms:
        stage = one.stage(base)
        changed = {path for path, _ in one.replace}
        assert changed <= {"model.connector", "model.encoder.layers", "model.arrange", "train"}
        same = replace(stage.model, connector=base.model.connector, encoder=base.model.encoder)
        assert replace(same, arrange=base.model.arrange) == base.model
        assert (stage.steps, stage.data, stage.batch_size) == (base.steps, base.data, base.batch_size)


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_arm_fits_and_has_as_many_tokens_as_others(name: str) -> None:
    stage = shelf().stages()[name]
    stage.model.check()
    bill = cost(stage.model, train=stage.train)
    wanted = 144 if name in PER_PATCH else 1 if name == "gated-cross-attention" else 36
    assert bill.visual_tokens == wanted
    assert bill.learned > 0
    assert bill.connector.parameters < 6_000_000


def test_connectors_by_name_take_the_place_of_the_arms() -> None:
    study = readme()
    chosen = with_connectors(study, ["mlp", "perceiver", "q-former"])
    assert [one.name for one in chosen.arms] == ["mlp", "perceiver", "q-former"]
    assert chosen.arms[0] == study.arms[0]
    assert chosen.text_only == "mlp"
    assert with_connectors(study, ["average-pool", "ldp"]).text_only == "average-pool"
    assert with_connectors(replace(study, text_only=None), ["ldp"]).text_only is None
    with pytest.raises(ValueError, match=r"Unknown connector 'percever'\. Did you mean 'perceiver'"):
        with_connectors(study, ["percever"])
    with pytest.raises(ValueError, match="'ldp' is taken"):
        with_connectors(study, ["ldp", "ldp"])


def short(stage: Stage) -> Stage:
    source = Source(of=WorldChat(split="train", num_scenes=8, questions=2))
    return replace(stage, steps=2, batch_size=2, data=(source,), validation=(), log_every=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf-features")


@pytest.mark.long
@pytest.mark.parametrize("name", CONNECTORS)
def test_every_arm_takes_two_steps(name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(cache))
    run = train(short(arm(name).stage(shelf().base)), tmp_path / "run", progress=False)
    losses = [line["loss"] for line in run.log() if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert losses[0] != losses[1]
    Run(tmp_path / "run").load_model(with_encoder=False)


@pytest.mark.long
def test_two_arms_by_name_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after one arm, the study goes on with the other and repeats nothing."""
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    small = ["--out", str(tmp_path / "study"), "--workers", "1", "--base.steps", "2", "--base.batch-size", "2"]
    small += ["--base.data.0.of.num-scenes", "8", "--base.data.1.weight", "1e-9", "--base.data.2.weight", "1e-9"]
    small += ["--base.validation.0.of.num-scenes", "2", "--tasks", "world/count", "--headline", "world/count"]
    small += ["--items-per-task", "2", "--control-items", "1", "--watch-items", "1", "--tune-rates", "1e-3"]
    small += ["--seeds", "1", "--text-only", "None"]
    assert main(["compare", "shelf", "--connectors", "instruct-q-former", *small]) == 0
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("jobs/final/*/*/done.json")}
    assert len(first) == 1
    assert main(["compare", "shelf", "--connectors", "instruct-q-former,identity", *small]) == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first
    finals = [job.arm for job in read_jobs(tmp_path / "study" / RESULTS_FILE) if job.kind == "final"]
    assert sorted(finals) == ["identity", "instruct-q-former"]
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "instruct-q-former" in page
    assert "36" in page
    capsys.readouterr()
    assert main(["compare", "shelf", "--connectors", "no-such", *small]) == 2
    assert "Unknown connector 'no-such'" in capsys.readouterr().err
