"""Every listed benchmark gives scorable items that training never sees."""

import json
import wave
from pathlib import Path

import pytest

from isthmus.evaluate.answers import METRICS
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.levels import chance_of


@pytest.fixture(autouse=True)
def esc10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three different clips in the place of the collection that a user brings."""
    folder = tmp_path / "esc10-data"
    folder.mkdir()
    for fold in (1, 3, 4):
        with wave.open(str(folder / f"{fold}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(bytes((fold, 0)) * 1_600)
    rows = [{"audio": f"{fold}.wav", "label": "rain", "fold": fold} for fold in (1, 3, 4)]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_items_are_the_same_each_time_and_can_be_scored(name: str) -> None:
    task = BENCHMARKS[name]
    items = task.items("test", 8)
    assert 1 <= len(items) <= 8
    assert [item.id for item in items] == [item.id for item in task.items("test", 8)]
    for item in items:
        assert item.meta["family"] == name
        assert item.meta["answers"]
        assert 0.0 <= chance_of(item) <= 0.5
        assert (item.meta["metric"] in METRICS) == (task.form == "answer")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_training_and_test_inputs_differ(name: str) -> None:
    task = BENCHMARKS[name]
    seen, held_out = (
        {ref.key for item in task.items(split, 40) for _, ref in item.inputs} for split in ("train", "test")
    )
    assert seen
    assert held_out
    assert not seen & held_out


def test_every_name_says_its_source() -> None:
    assert all("/" in name for name in BENCHMARKS)
    assert {task.kind for task in BENCHMARKS.values()} == {
        "exact world",
        "real images",
        "real sounds",
        "real clips",
    }
