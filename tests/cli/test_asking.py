"""`isthmus ask` takes pictures, videos and sounds by path, and says what it cannot take."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tiny_ears import save_ear

from isthmus.app.files import Videos, file_input, frames_of, kind_of
from isthmus.branches import Branch
from isthmus.cli.main import MISTAKE, main
from isthmus.connectors import VideoQFormerConfig
from isthmus.data.frames import FramesPerSecond, Keyframes, UniformFrames
from isthmus.data.sample import Sample
from isthmus.data.sources.spoken_digits import FOLDER
from isthmus.encoders import VideoEncoder
from isthmus.evaluate.sight import with_tiles
from isthmus.model import Model, VisionLanguageModel

MEDIA = Path(__file__).parent.parent / "data" / "media"
MOVIE = MEDIA / "classroom.mp4"
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


def test_a_run_of_clips_and_sounds_is_asked_about_both(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_ear("ast", tmp_path / "ear")
    run = tmp_path / "run"
    tower = [option.replace("--model.encoder", "--model.video.encoder.tower") for option in tiny[:4]]
    ear = ["--model.audio.encoder.name", str(tmp_path / "ear"), "--model.audio.encoder.window-s", "0.4"]
    few = ["--data.0.of.windows", "1", "--data.1.of.num", "4", "--validation.0.of.windows", "1"]
    whole = ["--model.llm.lora.rank", "0"]
    assert main(["train", "clips", "--out", str(run), *tiny, *tower, *ear, *few, *whole, *SMALL]) == 0
    capsys.readouterr()
    for path in (MOVIE, SEVEN):
        assert main(["ask", str(run), str(path), "What happens in this clip?", "--max-new-tokens", "3"]) == 0
    capsys.readouterr()
    tasks = ["clips/sentence", "clips/moves", "sounds/digit"]
    assert main(["evaluate", str(run), "--tasks", *tasks, "--num", "3", "--blind"]) == 0
    said = capsys.readouterr().out
    assert all(task in said for task in tasks)


def test_a_run_without_that_branch_says_so(tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    few = [*scenes(0), "--data.1.weight", "1e-9", "--data.2.weight", "1e-9", "--validation.0.of.num-scenes", "4"]
    assert main(["train", "quickstart", "--out", str(run), *tiny, *SMALL, *few]) == 0
    assert main(["ask", str(run), str(SEVEN), "Which digit is said?"]) == MISTAKE
    said = capsys.readouterr().err
    assert "'seven.flac' is given as a sound, and this model has no audio branch" in said
    assert "isthmus train sounds" in said
    assert main(["ask", str(run), str(SEVEN), "<image> Which?"]) == MISTAKE
    assert "The question holds <image>, and the files are <audio>" in capsys.readouterr().err
    assert main(["ask", str(run), str(SEVEN), "Which?", "--frames", "uniform:2"]) == MISTAKE
    assert "none of the files is one" in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sample, Model]]:
    """What was asked of which model; it answers all the same."""
    found: list[tuple[Sample, Model]] = []
    answer = VisionLanguageModel.answer

    def listen(model: VisionLanguageModel, samples: list[Sample], *options: Any) -> list[str]:
        found.extend((sample, model.config) for sample in samples)
        assert len(model.look(samples).plans) == sum(len(sample.inputs) for sample in samples)
        return answer(model, samples, *options)

    monkeypatch.setattr(VisionLanguageModel, "answer", listen)
    return found


def test_several_files_examples_frames_and_tiles(
    tmp_path: Path, tiny: list[str], asked: list[tuple[Sample, Model]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, red, wide = tmp_path / "run", tmp_path / "red.png", tmp_path / "wide.png"
    Image.new("RGB", (40, 30), "red").save(red)
    Image.new("RGB", (128, 32), "blue").save(wide)
    few = [*scenes(0), "--data.1.weight", "1e-9", "--data.2.weight", "1e-9", "--validation.0.of.num-scenes", "4"]
    few += ["--model.connector", "average-pool", "--model.connector.side", "1"]
    few += ["--model.encoder.tiles", "dynamic", "--model.encoder.tiles.max-tiles", "2"]
    assert main(["train", "quickstart", "--out", str(run), *tiny, *SMALL, *few]) == 0
    capsys.readouterr()

    def ask(file: Path, question: str, *options: str) -> int:
        return main(["ask", str(run), str(file), question, "--max-new-tokens", "2", *options])

    assert ask(red, "Is <image> like <image>?", "--also", str(wide)) == 0
    assert ask(red, "Same?", "--also", str(wide), str(MOVIE), "--frames", "uniform:3") == 0
    assert ask(MOVIE, "Which?", "--frames", "uniform:4", "--mosaic", "2") == 0
    said = [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": "Red."}]
    (tmp_path / "shots.json").write_text(json.dumps([{"id": "0", "image": "red.png", "conversations": said}]))
    assert ask(wide, "Colour?", "--examples", str(tmp_path / "shots.json")) == 0
    assert ask(wide, "Colour?", "--max-tiles", "4") == 0
    samples = [sample for sample, _ in asked]
    texts = [tuple(turn.text for turn in sample.turns) for sample in samples]
    assert texts == [
        ("Is <image> like <image>?",),
        ("<image>\n<image>\n<video>\nSame?",),
        ("<image>\nWhich?",),
        ("<image>\nColour?", "Red.", "<image>\nColour?"),
        ("<image>\nColour?",),
    ]
    assert len(samples[1].videos[0].load().frames) == 3
    whole, frame = samples[2].images[0].load().size, samples[1].videos[0].load().frames[0].size
    assert whole == (2 * frame[0], 2 * frame[1])
    views = [[len(config.encoder.plan(image.load().size).views) for image in one.images] for one, config in asked]
    assert [views[0], views[3], views[4]] == [[1, 3], [1, 3], [5]]

    for options, message in (
        (["--draw", str(tmp_path / "a.png"), "--also", str(wide)], "on one picture"),
        (["--draw", str(tmp_path / "a.nothing")], "name a picture to write"),
        (["--also", str(MOVIE), "--frames", "all"], "chooses no frames"),
        (["--max-tiles", "-1"], "min_tiles <= max_tiles"),
    ):
        assert ask(red, "What?", *options) == MISTAKE
        assert message in capsys.readouterr().err


def test_a_video_is_seen_at_as_many_frames_as_the_encoder_takes() -> None:
    clips = Branch(encoder=VideoEncoder(max_frames=4), connector=VideoQFormerConfig())
    for model in (Model(video=clips), Model(encoder=clips.encoder, connector=clips.connector)):
        assert frames_of(Videos(), model) == UniformFrames(num=4)
        assert frames_of(Videos(frames="fps:2"), model) == FramesPerSecond(rate=2.0, max_frames=4)
        with pytest.raises(ValueError, match=r"'uniform:8' may be 8, .* takes clips of 4 at most\. Choose uniform:4"):
            frames_of(Videos(frames="uniform:8"), model)
        assert frames_of(Videos(frames="uniform:8", mosaic=4), model) == UniformFrames(num=8)
    assert frames_of(Videos(), Model()) == UniformFrames()
    assert frames_of(Videos(frames="keyframes"), Model()) == Keyframes(max_frames=32)
    with pytest.raises(ValueError, match=r"max_tiles=40 is for .* this run has VisionEncoder, tiles=OneView"):
        with_tiles(Model(), 40)


def test_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    assert kind_of(SEVEN) == "audio"
    renamed = tmp_path / "sound.jpg"
    renamed.write_bytes(SEVEN.read_bytes())
    assert kind_of(renamed) == "audio"
    assert kind_of(MOVIE) == "video"
    stream = tmp_path / "stream.m1v"
    with av.open(str(stream), "w", format="mpeg1video") as container:
        made = container.add_stream("mpeg1video", rate=25)
        made.width, made.height, made.pix_fmt = 32, 16, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 32, 3), dtype=np.uint8), format="rgb24")
        frame.pts = 0
        container.mux(made.encode(frame))
        container.mux(made.encode(None))
    assert kind_of(stream) == "video"
    huge, photo = tmp_path / "huge.png", tmp_path / "photo.heic"
    Image.new("RGB", (4, 4)).save(huge)
    content = bytearray(huge.read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    huge.write_bytes(content)
    assert kind_of(huge) == "image"
    with pytest.raises(ValueError, match=r"huge\.png' is too large to open safely"):
        file_input(huge, "image", Model())
    photo.write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(ValueError, match=r"photo\.heic' is a HEIF or AVIF picture.* Save it as JPEG"):
        kind_of(photo)
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
    assert main(["chat", str(run)]) == MISTAKE
    assert f"ask for a caption alone: isthmus ask {run}" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--tasks", "world/count", "--num", "4"]) == MISTAKE
    assert "name tasks that describe in place of asking: --tasks retrieval/" in capsys.readouterr().err
    assert main(["ask", str(run), str(picture), "", "--max-new-tokens", "3", "--min-new-tokens", "2"]) == 0
    beams = ["--prompt", "Question: {} Short answer:", "--num-beams", "5", "--length-penalty", "-1"]
    assert main([*question, *beams]) == 0
    assert main(["evaluate", str(run), "--tasks", "world/count", "--num", "4", *beams]) == 0
    lines = (run / "report" / "answers-none.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert all(json.loads(line)["prompt"].endswith("? Short answer:") for line in lines)
    assert main([*question, "--prompt", "Answer:"]) == MISTAKE
    assert "holds its place once" in capsys.readouterr().err
