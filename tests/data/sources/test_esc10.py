"""ESC-10 from a folder in either of its forms, and what is said when there is none."""

import json
import wave
from pathlib import Path

import pytest

from isthmus.data.sources.esc10 import KINDS, NAMES, Esc10, questions

ROWS = (("1-a.wav", 1, "dog", "True"), ("2-b.wav", 2, "rain", "True"), ("4-c.wav", 4, "sea_waves", "True"))


def tone(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\x00\x10" * 1_600)


def as_published(folder: Path) -> None:
    """The form of ESC-50, with a clip that is not of ESC-10."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for name, fold, category, inside in (*ROWS, ("1-d.wav", 1, "cat", "False")):
        tone(folder / "audio" / name)
        lines.append(f"{name},{fold},0,{category},{inside},1,A")
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")


def as_lines(folder: Path) -> None:
    rows = [{"audio": f"audio/{name}", "label": NAMES[kind], "fold": fold} for name, fold, kind, _ in ROWS]
    for row in rows:
        tone(folder / str(row["audio"]))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    (folder / "val.jsonl").write_text(json.dumps(rows[2]) + "\n")


@pytest.mark.parametrize("write", [as_published, as_lines])
def test_folds_of_a_folder(write: object, tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path)
    learnt = Esc10(folder=str(tmp_path)).build()
    assert [learnt[index].turns[1].text for index in range(len(learnt))] == ["dog bark", "rain"]
    assert learnt[0].turns[0].text == "<audio>\nWhat makes this sound?"
    assert len(learnt[0].sounds[0].load().samples) == 1_600
    (asked,) = questions(10, folder=str(tmp_path))
    assert (asked.id, asked.meta["answers"], asked.meta["choices"]) == ("esc10/audio/4-c.wav", ("sea waves",), KINDS)
    assert len(asked.turns) == 1
    with pytest.raises(ValueError, match=r"no clip of the folds \(5,\)"):
        Esc10(folder=str(tmp_path), folds=(5,)).build()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"meta/esc50\.csv and audio, or JSON lines"):
        Esc10(folder=str(tmp_path)).build()
    (tmp_path / "a.jsonl").write_text('{"audio": "a.wav", "label": "cat", "fold": 1}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl line 1 names no audio file with a label of ESC-10: dog bark, rain"):
        Esc10(folder=str(tmp_path)).build()
