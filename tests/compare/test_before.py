"""Stages before an arm's own: trained once a seed, shared by arms that have the same ones, and started from."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_stage import Swatches, tiny_stage

from isthmus.compare.plan import StudyPlan
from isthmus.compare.results import JobResult
from isthmus.compare.schedule import Board
from isthmus.compare.study import Arm, Study
from isthmus.compare.work import work
from isthmus.data.sources.base import Source
from isthmus.runs import Run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two arms that go on from one earlier stage, and one that starts fresh."""
    held = (Source(of=Swatches(num=3, first=100)),)
    base = tiny_stage(tmp_path_factory.mktemp("before-models"), steps=4, log_every=1, validation=held)
    earlier = replace(base, name="tiny-earlier", steps=2)
    return Study(
        name="tiny",
        base=base,
        arms=(
            Arm(name="fresh"),
            Arm(name="warmed", before=(earlier,)),
            Arm(name="warmed, small batch", before=(earlier,), replace=(("batch_size", 2),)),
        ),
        seeds=(1, 2),
        tune_rates=(1e-3, 1e-2),
        tune_seeds=(7,),
        tasks=("world/count",),
        headline=("world/count",),
    )


def _ended(board: Board, plan: StudyPlan) -> None:
    for job in plan(board):
        board.done[job] = JobResult(job=job.name, kind=job.kind)


def test_earlier_stages_come_before_rates_and_are_shared(study: Study, tmp_path: Path) -> None:
    plan, board = StudyPlan(study, tmp_path, workers=1), Board()
    whole = plan.work_to_come()
    _ended(board, plan)
    earlier = plan(board)
    assert [(job.kind, job.seed, job.stages[0].seed) for job in earlier] == [
        ("before", 7, 7), ("before", 1, 1), ("before", 2, 2)
    ]  # fmt: skip
    assert whole - plan.work_to_come() == pytest.approx(sum(job.work for job in earlier))
    fresh = plan(board)
    assert {(job.kind, job.arm) for job in fresh} == {("tune", "fresh")}, "the other arms wait for their start"
    for job in earlier:
        board.done[job] = JobResult(job=job.name, kind="before")
    tune = plan(board)
    assert {job.arm for job in tune} == {"warmed", "warmed, small batch"}
    assert {job.start for job in tune} == {earlier[0].runs[-1]}
    assert {job.stage.start_from for job in tune} == {"tiny-earlier"}
    assert all(job.start is None and job.stage.start_from is None for job in fresh)


def test_an_arm_whose_earlier_stage_failed_is_lost(study: Study, tmp_path: Path) -> None:
    plan, board = StudyPlan(study, tmp_path, workers=1), Board()
    _ended(board, plan)
    for job in plan(board):
        board.failed[job] = "ValueError: the loss is not finite"
    assert {job.arm for job in plan(board)} == {"fresh"}
    assert plan.failures(board)[0] == "warmed could not be judged: a stage before it could not be trained."


def test_a_run_starts_from_the_stage_before_it(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    plan, board = StudyPlan(study, tmp_path, workers=1), Board()
    _ended(board, plan)
    first = plan(board)[0]
    told: list[float] = []
    work(first, lambda part, words: told.append(part))
    assert told == sorted(told)
    board.done[first] = first.result()
    assert first.result().kind == "before"
    assert first.result().steps == 2
    for seed in (1, 2):
        other = next(job for job in plan._earlier() if job.seed == seed)
        board.done[other] = JobResult(job=other.name, kind="before")
    job = next(job for job in plan(board) if job.arm == "warmed")
    work(job, lambda part, words: None)
    start = Run(job.runs[0]).stage_json["start"]
    assert Path(start["folder"]) == first.runs[-1].resolve()
    assert job.result().before_core_seconds == first.result().train_core_seconds > 0


def test_what_cannot_be_compared_is_refused(study: Study) -> None:
    with pytest.raises(ValueError, match="'warmed', whose earlier stages saw pictures"):
        replace(study, text_only="warmed")
    counted = replace(study.base, name="e", steps=None, epochs=1.0)
    with pytest.raises(ValueError, match="the stage 'e' before it counts epochs"):
        replace(study, arms=(Arm(name="warmed", before=(counted,)),))
