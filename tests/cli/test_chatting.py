"""`isthmus chat`, `ask --draw` and the events of `train`, from the command line."""

import builtins
from pathlib import Path

import pytest
from PIL import Image

from isthmus.cli.main import MISTAKE, main

SMALL = ["--steps", "2", "--batch-size", "2", "--data.0.of.num-scenes", "8", "--data.0.of.questions", "2"]
SMALL += ["--validation.0.of.num-scenes", "4", "--data.1.weight", "1e-9", "--data.2.weight", "1e-9"]


def test_chat_ask_and_draw(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, picture = tmp_path / "run", tmp_path / "a picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    assert main(["train", "quickstart", "--out", str(folder), *tiny, *SMALL]) == 0
    assert f"tensorboard --logdir {folder}" in capsys.readouterr().out
    assert list((folder / "tensorboard").glob("events*"))

    lines = iter(["What?", "/history", "/clear", f"/image '{picture}'", "And this?", "/image nowhere.png", "/history"])

    def typed(prompt: str = "") -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", typed)
    assert main(["chat", str(folder), "--image", str(picture), "--max-new-tokens", "3", "--answer", "short"]) == 0
    said = capsys.readouterr().out
    assert "you: <image> What? Answer the question using a single word or phrase." in said
    assert "you: <image> And this?" in said
    assert "No file 'nowhere.png'" in said
    assert "(attached: 1, tokens: 16)" in said

    drawn = tmp_path / "drawn.png"
    asked = "What is <ref>this</ref><box>(100,100),(500,500)</box>?"
    assert main(["ask", str(folder), str(picture), asked, "--max-new-tokens", "2", "--draw", str(drawn)]) == 0
    assert f"1 box drawn: {drawn}" in capsys.readouterr().out
    with Image.open(drawn) as found:
        assert found.size == (400, 300)

    assert main(["evaluate", str(folder), "--tasks", "world/grounding", "world/count", "--num", "4"]) == 0
    said = capsys.readouterr().out
    assert "mean IoU" in said
    (line,) = (line for line in said.splitlines() if "world/grounding" in line)
    assert "0.0" in line

    assert main(["chat", str(tmp_path / "nothing")]) == MISTAKE
    assert "is not a run folder" in capsys.readouterr().err


def test_events_can_be_left_off(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "quickstart", "--out", str(folder), "--no-tensorboard", *tiny, *SMALL]) == 0
    assert "tensorboard" not in capsys.readouterr().out
    assert not (folder / "tensorboard").exists()
