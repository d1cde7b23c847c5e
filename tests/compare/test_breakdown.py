"""A task in parts: by what its items say of themselves, for every arm and seed, in the report."""

import json
from dataclasses import replace

import pytest
from fake_study import fake_results

from isthmus.compare.breakdown import Breakdown, break_down, breakdowns_to_json
from isthmus.compare.judge import judge
from isthmus.compare.report import parts_table, render
from isthmus.data.sample import Sample, Turn
from isthmus.evaluate.benchmarks import BENCHMARKS, DEFAULT_TASKS
from isthmus.evaluate.record import Answer

HEIGHTS = (10.0, 5.0, 20.0, 5.0, 10.0, 5.0)


def items(values: tuple[object, ...] = HEIGHTS) -> list[Sample]:
    turn = Turn(role="user", text="?")
    return [Sample(id=str(n), turns=(turn,), meta={"detail": {"px": value}}) for n, value in enumerate(values)]


def said(*scores: float) -> dict[str, Answer]:
    return {
        str(n): Answer(
            item=str(n), family="f", group="g", control="none", prompt="", prediction="", answers=("a",),
            score=float(score),
        )
        for n, score in enumerate(scores)
    }  # fmt: skip


def parts(answers: dict[str, dict[int, dict[str, Answer]]], made: list[Sample] | None = None) -> Breakdown | None:
    return break_down(made or items(), answers, task="world/reading", title="Reading", by="px", words="height, px")


def test_numbers_stand_in_their_order_with_the_mean_of_each() -> None:
    found = parts({"mlp": {2: said(1, 0, 1, 1, 0, 0), 1: said(1, 1, 1, 1, 1, 1)}})
    assert found is not None
    assert (found.parts, found.counts) == (("5", "10", "20"), (3, 2, 1))
    assert found.accuracy["mlp"] == {2: (1 / 3, 0.5, 1.0), 1: (1.0, 1.0, 1.0)}
    assert found.of("mlp", 0) == [1.0, 1 / 3]
    assert found.of("nobody", 0) == []


def test_words_may_be_the_parts() -> None:
    found = parts({}, items(("two tiles", "one tile", "two tiles")))
    assert found is not None
    assert (found.parts, found.counts) == (("one tile", "two tiles"), (1, 2))


def test_nothing_to_break_down() -> None:
    assert parts({}, items((5.0, 5.0))) is None
    half = parts({"mlp": {1: said(1, 1)}})
    assert half is not None
    assert half.accuracy["mlp"] == {}
    with pytest.raises(ValueError, match="'0' of 'world/reading' has no detail 'px'"):
        parts({}, [Sample(id="0", turns=(Turn(role="user", text="?"),))])


def test_the_report_shows_every_part() -> None:
    results = fake_results(seeds=(1, 2))
    found = parts({arm: {1: said(1, 0, 1, 1, 0, 0), 2: said(1, 1, 1, 1, 0, 0)} for arm in results.arms})
    assert found is not None
    broken = replace(results, breakdowns=(found,))
    header, lines = parts_table(broken, found)
    assert header == ["height, px", "5", "10", "20"]
    assert lines[0] == ["questions", "3", "2", "1"]
    assert [line[0] for line in lines[1:]] == list(results.arms)
    assert lines[1][3].startswith("100.0 ±")
    page = render(broken, judge(broken))
    assert "Part by part" in page
    assert "accuracy by height, px" in page
    assert "Part by part" not in render(results, judge(results))
    (read,) = json.loads(breakdowns_to_json([found]))
    assert read["accuracy"]["mlp"]["2"] == [2 / 3, 0.5, 1.0]


@pytest.mark.parametrize("name", [name for name, task in BENCHMARKS.items() if task.by])
def test_every_item_of_such_a_task_says_its_part(name: str) -> None:
    task = BENCHMARKS[name]
    found = break_down(task.items("test", 60), {}, task=name, title=task.title, by=task.by, words=task.by_title)
    assert found is not None
    assert len(found.parts) >= 2
    assert found.by
    assert name not in DEFAULT_TASKS
