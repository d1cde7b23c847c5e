"""What `isthmus evaluate` prints."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from isthmus.cli.evaluating import Row, Scored, tables
from isthmus.evaluate.levels import Levels

BOXES = Row(
    task="world/grounding",
    accuracy=0.08,
    questions=200,
    levels=Levels(chance=0.0, majority=0.05, question_only=0.055),
    seeing=(0.01, -0.031, 0.045),
    mean_iou=0.087,
)
DIGITS = Row(
    task="sounds/digit", accuracy=0.61, questions=200, levels=Levels(chance=0.1, majority=0.1, question_only=0.1)
)


def said(*rows: Row) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    for one in tables(Scored(rows=rows, path=Path("answers.jsonl"))):
        console.print(one)
    return console.export_text()


def test_nothing_is_cut_off_at_eighty_columns() -> None:
    printed = said(BOXES)
    assert "…" not in printed
    for word in ("majority", "question", "asked", "mean image", "seeing adds", "8.7", "5.5"):
        assert word in printed
    assert "-3.1 to +4.5" in printed
    assert "7.0" in printed  # over the mean image: 8.0 less 1.0


@pytest.mark.parametrize(("rows", "count"), [((DIGITS,), 1), ((DIGITS, BOXES), 2)])
def test_what_seeing_adds_has_a_table_where_it_was_asked(rows: tuple[Row, ...], count: int) -> None:
    made = tables(Scored(rows=rows, path=Path("answers.jsonl")))
    assert len(made) == count
    assert [one.row_count for one in made] == [len(rows), 1][:count]
