"""A whole study on tiny models: trained, asked, killed once, reported; then run again without doing anything again."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from fragile_work import fragile
from tiny_stage import Swatches, tiny_stage

from isthmus.compare.plan import StudyPlan
from isthmus.compare.results import JobResult, read_jobs
from isthmus.compare.run import REPORT_FILE, RESULTS_FILE, STUDY_FILE, run_study
from isthmus.compare.schedule import Board
from isthmus.compare.study import TEXT_ONLY, Arm, Study
from isthmus.connectors import LinearConfig, MlpConfig
from isthmus.data.sources.base import Source
from isthmus.evaluate.record import read_answers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study-models")


def tiny_study(root: Path, **changes: object) -> Study:
    base = tiny_stage(root, steps=10, log_every=1, validation=(Source(of=Swatches(num=3, first=100)),))
    study = Study(
        name="tiny",
        base=base,
        arms=(
            Arm(name="linear", replace=(("model.connector", LinearConfig()),)),
            Arm(name="mlp", replace=(("model.connector", MlpConfig()),)),
        ),
        seeds=(1, 2),
        tune_rates=(1e-3, 1e-2),
        tune_seeds=(7,),
        tune_fraction=0.2,
        tasks=("world/count", "nlvr/exact"),
        headline=("world/count",),
        items_per_task=4,
        headline_items=5,
        control_items=3,
        watch_items=2,
        text_only="linear",
    )
    return replace(study, **changes)  # type: ignore[arg-type]


def test_the_plan_gives_pictures_then_rates_then_judged_runs(root: Path, tmp_path: Path) -> None:
    plan, board = StudyPlan(tiny_study(root), tmp_path, workers=2), Board()
    first = plan(board)
    assert [job.kind for job in first] == ["features", "features", "levels"]
    assert plan(board) == []
    for job in first:
        board.done[job] = JobResult(job=job.name, kind="features")
    tune = plan(board)
    assert [(job.arm, job.rate) for job in tune] == [
        (arm, rate) for arm in ("linear", "mlp", TEXT_ONLY) for rate in (1e-3, 1e-2)
    ]
    assert {job.stage.steps for job in tune} == {2}
    for job, loss in zip(tune, (2.0, 1.0, 1.0, 2.0, 1.0, 2.0), strict=True):
        board.done[job] = JobResult(job=job.name, kind="tune", rate=job.rate, validation_loss=loss)
    del board.done[tune[3]]
    board.failed[tune[3]] = "ValueError: the loss is not finite"
    final = plan(board)
    assert plan.rates == {"linear": 1e-2, "mlp": 1e-3, TEXT_ONLY: 1e-3}
    assert [(job.arm, job.seed) for job in final] == [(arm, s) for arm in ("linear", "mlp", TEXT_ONLY) for s in (1, 2)]
    assert {job.stage.optimizer.peak_lr for job in final if job.arm == "linear"} == {1e-2}
    assert plan(board) == []
    assert plan.failures(board) == ["mlp: rate 0.01 failed: ValueError: the loss is not finite."]


def test_an_arm_may_have_rates_of_its_own(root: Path, tmp_path: Path) -> None:
    arms = (Arm(name="linear"), Arm(name="deep", rates=(1e-4, 3e-4, 5e-4)), Arm(name="one", rates=(1e-4,)))
    plan, board = StudyPlan(tiny_study(root, arms=arms, text_only="deep"), tmp_path, workers=1), Board()
    for job in plan(board):
        board.done[job] = JobResult(job=job.name, kind=job.kind)
    new = plan(board)
    tried = {arm: [job.rate for job in new if job.kind == "tune" and job.arm == arm] for arm in plan.stages}
    assert tried == {"linear": [1e-3, 1e-2], "deep": [1e-4, 3e-4, 5e-4], "one": [], TEXT_ONLY: [1e-4, 3e-4, 5e-4]}
    assert [(job.arm, job.rate) for job in new if job.kind == "final"] == [("one", 1e-4)] * 2


def test_arms_share_everything_that_is_not_replaced(root: Path) -> None:
    study = tiny_study(root)
    linear, mlp = (study.at(arm, rate=1e-3, seed=4) for arm in ("linear", "mlp"))
    assert replace(linear, model=mlp.model, name=mlp.name) == mlp
    blind = study.at(TEXT_ONLY, rate=1e-3, seed=4)
    assert blind.model == linear.model
    sample = blind.data[0].of.build()[0]
    assert sample.images[0].key.startswith("blank")
    assert sample.turns == linear.data[0].of.build()[0].turns


def test_an_arm_without_any_rate_is_lost(root: Path, tmp_path: Path) -> None:
    plan, board = StudyPlan(tiny_study(root), tmp_path, workers=1), Board()
    for job in plan(board):
        board.done[job] = JobResult(job=job.name, kind="features")
    for job in plan(board):
        board.failed[job] = "ValueError: no"
    assert plan(board) == []
    assert plan.failures(board)[0] == "linear could not be judged: no learning rate could be trained with."


@pytest.mark.long
def test_a_whole_study(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    study, folder = tiny_study(root), tmp_path / "study"
    results, verdict = run_study(study, folder, workers=2, progress=False, do=fragile)
    assert results.failures == ()
    assert [len(results.finals(arm)) for arm in ("linear", "mlp", TEXT_ONLY)] == [2, 2, 2]
    assert {judged.arm for judged in verdict.arms} == {"linear", "mlp"}
    assert (folder / REPORT_FILE).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((folder / STUDY_FILE).read_text())["study"]["name"] == "tiny"
    jobs = read_jobs(folder / RESULTS_FILE)
    assert sorted(job.kind for job in jobs) == ["features"] * 2 + ["final"] * 6 + ["levels"] + ["tune"] * 6

    killed = [path.parent for path in folder.glob("jobs/final/linear/*/killed")]
    assert len(killed) == 1
    early = results.finals("linear")[1].watched
    assert early is not None
    seeing = results.finals("mlp")[2]
    assert set(seeing.scores) == {"none", "mean-image", "shuffled"}
    assert seeing.counts["none"] == {"world/count": 5, "nlvr/exact": 4}
    assert seeing.counts["shuffled"] == {"world/count": 3}
    assert set(results.finals(TEXT_ONLY)[1].scores) == {"text-only"}
    answers = read_answers(next(folder.glob("jobs/final/mlp/seed-2-*")) / "answers" / "none.jsonl")
    assert len(answers) == 9
    assert all("Question:" in answer.prompt for answer in answers)
    assert seeing.encoder_calls == 0

    before = {path: path.stat().st_mtime_ns for path in folder.glob("jobs/*/*/*/done.json")}
    again, _ = run_study(study, folder, workers=2, progress=False, do=fragile)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("jobs/*/*/*/done.json")} == before
    assert again.finals("mlp") == results.finals("mlp")
    assert sorted(job.job for job in again.jobs) == sorted(job.job for job in results.jobs)
    longer, _ = run_study(replace(study, seeds=(1, 2, 3)), folder, workers=2, progress=False, do=fragile)
    assert len(longer.finals("mlp")) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
