"""`isthmus chat`, `ask --draw` and the events of `train`, from the command line."""

import builtins
import json
from pathlib import Path

import pytest
from PIL import Image

from isthmus.cli.main import MISTAKE, main

MOVIE = Path(__file__).parent.parent / "data" / "media" / "classroom.mp4"
SMALL = ["--steps", "2", "--batch-size", "2", "--data.0.of.num-scenes", "8", "--data.0.of.questions", "2"]
SMALL += ["--validation.0.of.num-scenes", "4", "--data.1.weight", "1e-9", "--data.2.weight", "1e-9"]


def type_lines(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """Lets `input` read these lines, then the end."""
    waiting = iter(lines)

    def typed(prompt: str = "") -> str:
        line = next(waiting, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", typed)


def test_chat_ask_and_draw(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, picture = tmp_path / "run", tmp_path / "a picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    assert main(["train", "quickstart", "--out", str(folder), *tiny, *SMALL]) == 0
    assert f"tensorboard --logdir {folder}" in capsys.readouterr().out
    assert list((folder / "tensorboard").glob("events*"))

    lines = ["What?", "/history", "/clear", f"/image '{picture}'", "And this?", "/image nowhere.png", "/history"]
    type_lines(monkeypatch, lines)
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


def test_a_chat_with_examples_further_files_a_mosaic_and_finer_tiles(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wide = tmp_path / "run", tmp_path / "wide.png"
    Image.new("RGB", (128, 32), "blue").save(wide)
    pooled = ["--model.connector", "average-pool", "--model.connector.side", "1"]
    pooled += ["--model.encoder.tiles", "dynamic", "--model.encoder.tiles.max-tiles", "2"]
    assert main(["train", "quickstart", "--out", str(folder), "--no-tensorboard", *tiny, *SMALL, *pooled]) == 0
    said = [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": "Blue."}]
    (tmp_path / "shots.json").write_text(json.dumps([{"id": "0", "image": "wide.png", "conversations": said}]))
    capsys.readouterr()

    def chat(*options: str) -> int:
        type_lines(monkeypatch, ["Which is like <image>, <image>?", "/history", "/clear", "/history"])
        return main(["chat", str(folder), "--image", str(wide), "--max-new-tokens", "2", *options])

    examples = ["--examples", str(tmp_path / "shots.json"), "--max-tiles", "4"]
    assert chat(*examples, "--also", str(MOVIE), "--frames", "uniform:4", "--mosaic", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("you: <image> Colour?") == lines.count("model: Blue.") == 2
    assert lines.count("you: Which is like <image>, <image>?") == 1
    assert [line for line in lines if "attached" in line] == ["(attached: 3, tokens: 15)", "(attached: 1, tokens: 5)"]

    for options, message in (
        (["--max-tiles", "-1"], "min_tiles <= max_tiles"),
        (["--also", str(MOVIE), "--frames", "all"], "chooses no frames"),
        (["--also", "nowhere.mp4"], "No file 'nowhere.mp4'"),
        (["--frames", "uniform:0"], "chooses no frames"),
        (["--mosaic", "-2"], "give 1 or more"),
        (["--temperature", "-1"], "give 0 for greedy answers"),
        (["--examples", str(tmp_path / "no.json")], "No file"),
    ):
        assert chat(*options) == MISTAKE
        assert message in capsys.readouterr().err


def test_events_can_be_left_off(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "quickstart", "--out", str(folder), "--no-tensorboard", *tiny, *SMALL]) == 0
    assert "tensorboard" not in capsys.readouterr().out
    assert not (folder / "tensorboard").exists()
