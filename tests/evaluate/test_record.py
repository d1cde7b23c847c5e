"""Answers survive their file, and a broken file says where."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.evaluate.record import Answer, accuracy, read_answers, write_answers

ANSWER = Answer(
    item="scene/1", family="world/count", group="scene", control="none", prompt="<image>\nQuestion: how many? Answer:",
    prediction='2 "two"\u2028', answers=("2", "two"), score=1.0, compared="2 2", compared_with=("2", "2"),
)  # fmt: skip


def test_answers_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    write_answers([ANSWER, ANSWER], path)
    assert read_answers(path) == [ANSWER, ANSWER]
    assert [found.name for found in path.parent.iterdir()] == ["answers.jsonl"]


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers([ANSWER], path)
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["compared"], values["compared_with"]
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    assert read_answers(path) == [replace(ANSWER, compared="", compared_with=())]


@pytest.mark.parametrize("line", ["{", "[]", '{"item": "x"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers([ANSWER], path)
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read_answers(path)


def test_accuracy_is_the_mean_score() -> None:
    assert accuracy([ANSWER, Answer(**{**ANSWER.__dict__, "score": 0.0})]) == 0.5
    with pytest.raises(ValueError, match="No answers"):
        accuracy([])
