"""Arms without a language model: searched, judged, watched and reported; what they cannot be asked is refused."""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_study import fake_results
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_stage import Swatches
from tiny_stage1 import captioned, tiny_stage1

from isthmus.compare import aligning
from isthmus.compare.aligning import Aligning, chance_in, found_images, found_texts
from isthmus.compare.costs import answering_work, arm_cost, training_work
from isthmus.compare.examples import pick_examples
from isthmus.compare.jobs import DONE, AskedToAlign, Job, asked_of
from isthmus.compare.judge import judge
from isthmus.compare.plan import StudyPlan
from isthmus.compare.report import render
from isthmus.compare.results import ArmCost, JobResult, Results, TaskInfo
from isthmus.compare.run import collect
from isthmus.compare.schedule import Board
from isthmus.compare.study import JUDGED, Arm, Study
from isthmus.compare.table import print_table
from isthmus.compare.work import work
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Source
from isthmus.evaluate.gallery import make_gallery
from isthmus.evaluate.levels import Levels
from isthmus.evaluate.record import read_answers
from isthmus.llms import CausalLM
from isthmus.train.objectives import ITC, ITG, ITM

TASKS = ("gallery/world", "gallery/textbook", "swaps/exchanged")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    held = (Source(of=Swatches(num=3, first=100)),)
    base = tiny_stage1(tmp_path_factory.mktemp("aligning-models"), steps=10, log_every=1, validation=held)
    return Study(
        name="tiny",
        base=base,
        arms=(
            Arm(name="two", replace=(("objectives", (ITC(), ITM())), ("steps", 15))),
            Arm(name="three", replace=(("objectives", (ITC(), ITM(), ITG())),)),
        ),
        seeds=(1, 2),
        tune_rates=(1e-3,),
        tasks=TASKS,
        headline=TASKS[:2],
        items_per_task=3,
        headline_items=5,
        watch_items=2,
    )


def named(*pairs: tuple[int, str]) -> list[Sample]:
    return [replace(item, meta={"family": "gallery/tiny"}) for item in captioned(*pairs)]


def test_each_query_of_a_gallery_is_an_answer() -> None:
    items = named((1, "one"), (1, "uno"), (2, "two"), (2, "one"))
    gallery = make_gallery(items)
    scores = torch.tensor([[0.1, 0.5, 0.5], [0.9, 0.0, 0.3]])  # pictures 1 and 2 with "one", "uno" and "two"
    texts = list(found_texts(items, gallery, scores))
    assert [(one.item, one.prediction, one.answers, one.score) for one in texts] == [
        ("0", "two", ("one", "uno"), 0.0),  # a tie counts against it
        ("2", "one", ("one", "two"), 1.0),
    ]
    images = list(found_images(items, gallery, scores))
    assert [(one.item, one.prediction, one.answers, one.score) for one in images] == [
        ("0/picture", "2", ("0", "2"), 1.0),
        ("1/picture", "0", ("0",), 1.0),
        ("2/picture", "0", ("2",), 0.0),
    ]
    assert images[2].prompt.endswith("two")
    assert gallery.chance == pytest.approx((2 / 3 + 2 / 3 + 1.0 + 1 / 2 + 1 / 2) / 5)


def test_chance_is_known() -> None:
    count, levels = chance_in("gallery/world", 6)
    assert count == 12
    assert levels.highest == levels.chance == pytest.approx(1 / 6)
    assert chance_in("swaps/replaced", 4) == (4, Levels(chance=0.5, majority=0.5, question_only=0.5))


def done_features(board: Board, jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.kind == "features":
            board.done[job] = JobResult(job=job.name, kind="features")


def test_a_judged_run_is_searched_and_asked_once(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    plan, board = StudyPlan(study, tmp_path, workers=1), Board()
    first = plan(board)
    done_features(board, first)
    work(first[-1], lambda part, words: None)
    board.done[first[-1]] = first[-1].result()
    jobs = plan(board)
    assert [(job.arm, job.seed, job.stage.steps) for job in jobs] == [
        ("two", 1, 15), ("two", 2, 15), ("three", 1, 10), ("three", 2, 10)
    ]  # fmt: skip
    job = jobs[0]
    assert isinstance(job.asked, AskedToAlign)
    assert job.asked.judge == JUDGED
    work(job, lambda part, words: None)
    result = job.result()
    assert set(result.scores) == {"none", "compared"}
    assert set(result.scores["none"]) == set(result.scores["compared"]) == set(TASKS)
    assert result.counts["none"] == {"gallery/world": 10, "gallery/textbook": 10, "swaps/exchanged": 3}
    assert result.first_token_ms is None
    assert result.watched is not None
    lines = {path.stem: len(read_answers(path)) for path in (job.folder / "answers").iterdir()}
    assert lines == {"none": 23, "compared": 23, "early": 8, "watched": 8}

    (job.folder / DONE).unlink()
    monkeypatch.setattr(aligning, "retrieve_both_ways", None)
    monkeypatch.setattr(aligning, "prefer", None)
    work(job, lambda part, words: None)
    assert job.result().scores == result.scores
    assert job.result().watched == result.watched

    board.done[job] = result
    results = collect(study, plan, board, "isthmus compare tiny")
    assert results.judge == JUDGED
    assert results.facts["training"].startswith("two: 15 steps, ")
    assert [task.count for task in results.tasks] == [10, 10, 3]
    cards = pick_examples(results, [job], study)
    assert {card.question for card in cards} == {"Which description is its own?"}
    assert "R@1" in render(results, judge(results), examples=cards)


def test_without_a_matching_head_in_every_arm_comparison_decides(study: Study) -> None:
    alone = replace(study, arms=(*study.arms, Arm(name="one", replace=(("objectives", (ITC(),)),))))
    asked = asked_of(alone, "two")
    assert isinstance(asked, AskedToAlign)
    assert alone.judge == asked.judge == 0
    assert Aligning.ways.fget(SimpleNamespace(asked=asked)) == ("none",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_only": "two"}, "there is no text-only arm to train"),
        ({"tasks": ("world/count",), "headline": ("world/count",)}, "with a language model, but these arms have none"),
        ({"tasks": ("gallery/wrld",), "headline": ("gallery/wrld",)}, "Did you mean 'gallery/world'"),
        ({"arms": (Arm(name="a", replace=(("objectives", (ITM(),)),)),)}, "Arm 'a' learns no comparison"),
        ({"arms": (Arm(name="a", replace=(("model.llm", CausalLM()),)),)}, "Set llm=None"),
    ],
)
def test_what_such_arms_cannot_be_asked_is_refused(study: Study, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(study, **changes)  # type: ignore[arg-type]


def test_an_arm_costs_what_its_objectives_read(study: Study) -> None:
    two, three = study.stages().values()
    cost = arm_cost(two)
    assert cost.visual_tokens == 3
    assert (cost.prefill_flops, cost.kv_bytes) == (None, None)
    assert cost.flops == cost.connector_flops < arm_cost(three).connector_flops
    assert training_work(two) == 15 * 4 * 3 * cost.connector_flops
    assert answering_work(three, 10) > answering_work(replace(three, objectives=(ITC(),)), 10) > 0


def aligned_results(level: float = 0.2) -> Results:
    names = {"gallery/world": ("exact world", 0.005), "gallery/textbook": ("real images", 0.01)}
    jobs = tuple(
        JobResult(
            job=f"{arm}-{seed}", kind="final", arm=arm, seed=seed, rate=1e-3, steps=80, train_core_seconds=60.0,
            train_curve=((1, 9.0), (2, 8.0)), watched=(at, at),
            scores={"none": dict.fromkeys(names, at + 0.001 * seed), "compared": dict.fromkeys(names, at / 2)},
        )
        for arm, at in (("with", level), ("without", level / 2))
        for seed in (1, 2, 3)
    )  # fmt: skip
    cost = ArmCost(
        connector_parameters=9, trained_parameters=9, visual_tokens=16, connector_flops=9_000, encoder_flops=1
    )
    return replace(
        fake_results(),
        headline=tuple(names),
        arms=("with", "without"),
        blind_arm=None,
        judge=JUDGED,
        jobs=jobs,
        costs={"with": cost, "without": cost},
        tasks=tuple(
            TaskInfo(
                name=name, title=name, kind=kind, count=400,
                levels=Levels(chance=chance, majority=chance, question_only=chance),
            )
            for name, (kind, chance) in names.items()
        ),
    )  # fmt: skip


def test_the_verdict_speaks_of_chance_and_claims_no_sight() -> None:
    verdict = judge(aligned_results())
    said = " ".join((*verdict.lines, *verdict.caveats))
    assert verdict.lines[0] == (
        "with finds what belongs together in 20.2% of gallery/world and gallery/textbook (800 held-out queries, "
        "3 seeds), more than every other arm, each by a clear margin."
    )
    assert "It is above chance: +19.4 points against a blind guess" in said
    assert "On real images it is clearly above chance on 1 of 1 task: gallery/textbook." in said
    assert "no blind control without a language model" in said
    assert not any(word in said for word in ("sees", "majority", "question-only"))
    assert "not shown to be above chance" in " ".join(judge(aligned_results(0.004)).lines)


def test_the_page_and_the_table_have_dashes_where_a_language_model_would_be() -> None:
    results = aligned_results()
    page = render(results, judge(results))
    assert page.count("<td>–</td>") == 2 * 3  # of two arms: FLOPs, cache, first token
    for words in ("the 16 best of each query are judged again", "What judging again adds", "R@1"):
        assert words in page
    for words in ("Is it the picture?", "majority", "question only", "cache are for"):
        assert words not in page
    compared = render(replace(results, judge=0), judge(results))
    assert "by comparison alone, for not every arm" in compared
    assert "What judging again adds" not in compared
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(results, judge(results), console)
    assert "–" in console.export_text()
