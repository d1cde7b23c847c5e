"""`isthmus ask` takes pictures, videos and sounds by path, and says what it cannot take."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_ears import save_ear

from isthmus.app.files import kind_of
from isthmus.cli.main import MISTAKE, main
from isthmus.data.sources.spoken_digits import FOLDER

MEDIA = Path(__file__).parent.parent / "data" / "media"
SEVEN = FOLDER / "examples" / "seven.flac"
SMALL = ["--steps", "2", "--batch-size", "2"]


def scenes(number: int) -> list[str]:
    return [f"--data.{number}.of.num-scenes", "8", f"--data.{number}.of.questions", "2"]


def test_a_run_with_an_audio_branch_is_asked_about_anything(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_ear("ast", tmp_path / "ear")
    run = tmp_path / "run"
    tiny = [*tiny, "--model.connector", "average-pool", "--model.connector.side", "2"]
    ear = ["--model.audio.encoder.name", str(tmp_path / "ear"), "--model.audio.encoder.window-s", "0.4"]
    assert main(["train", "sounds", "--out", str(run), *tiny, *ear, *SMALL, *scenes(1)]) == 0
    capsys.readouterr()
    for path in (SEVEN, *sorted(MEDIA.glob("*.mp4"))[:1]):
        assert main(["ask", str(run), str(path), "Which digit is said?", "--max-new-tokens", "3"]) == 0
        assert capsys.readouterr().out.endswith("\n")
    assert main(["ask", str(run), str(SEVEN), "Where?", "--draw", str(tmp_path / "boxes.png")]) == MISTAKE
    assert "is a sound" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--tasks", "sounds/digit", "--num", "6"]) == 0
    assert "sounds/digit" in capsys.readouterr().out


def test_a_run_without_that_branch_says_so(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    few = [*scenes(0), "--data.1.weight", "1e-9", "--data.2.weight", "1e-9", "--validation.0.of.num-scenes", "4"]
    assert main(["train", "quickstart", "--out", str(run), *tiny, *SMALL, *few]) == 0
    assert main(["ask", str(run), str(SEVEN), "Which digit is said?"]) == MISTAKE
    said = capsys.readouterr().err
    assert "'seven.flac' is a sound, and this model has no audio branch" in said
    assert "isthmus train sounds" in said
    assert main(["ask", str(run), str(SEVEN), "<audio> Which?"]) == MISTAKE
    assert "Leave <audio> out of the question" in capsys.readouterr().err


def test_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    assert kind_of(SEVEN) == "audio"
    renamed = tmp_path / "sound.jpg"
    renamed.write_bytes(SEVEN.read_bytes())
    assert kind_of(renamed) == "audio"
    text = tmp_path / "notes.wav"
    text.write_text("no sound at all")
    with pytest.raises(ValueError, match=r"notes\.wav' is no picture, video or sound that can be read"):
        kind_of(text)
    with pytest.raises(ValueError, match=r"No file '.*nothing\.flac'"):
        kind_of(tmp_path / "nothing.flac")


def test_a_run_of_captions_is_asked_in_blip2s_words(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, picture = tmp_path / "run", tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    few = ["--data.0.of.num-scenes", "8", "--validation.0.of.num-scenes", "4"]
    only = ["--model.prompt", "caption"]
    assert main(["train", "llava15/tiny-stage1", "--out", str(run), *tiny, *SMALL, *few, *only]) == 0
    capsys.readouterr()
    question = ["ask", str(run), str(picture), "Which colour?", "--max-new-tokens", "3"]
    assert main(question) == MISTAKE
    said = capsys.readouterr().err
    assert "trained on captions alone (prompt Caption)" in said
    assert "--prompt 'Question: {} Answer:'" in said
    assert main(["ask", str(run), str(picture), "", "--max-new-tokens", "3"]) == 0
    beams = ["--prompt", "Question: {} Short answer:", "--num-beams", "5", "--length-penalty", "-1"]
    assert main([*question, *beams]) == 0
    assert main(["evaluate", str(run), "--tasks", "world/count", "--num", "4", *beams]) == 0
    lines = (run / "report" / "answers-none.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert all(json.loads(line)["prompt"].endswith("? Short answer:") for line in lines)
    assert main([*question, "--prompt", "Answer:"]) == MISTAKE
    assert "holds its place once" in capsys.readouterr().err
