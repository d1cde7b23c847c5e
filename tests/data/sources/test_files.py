"""The file formats that users bring, right and wrong."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from isthmus.data.mixture import Mixture
from isthmus.data.sample import Sample
from isthmus.data.sources import CaptionFile, LlavaFile, Source, SourceConfig, TextFile

Row = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "a.png")
    return tmp_path


def first(config: SourceConfig) -> Sample:
    return config.build()[0]


def captions(root: Path, *lines: str) -> CaptionFile:
    (root / "c.jsonl").write_text("\n".join(lines) + "\n")
    return CaptionFile(path=str(root / "c.jsonl"), root=str(root))


def llava(root: Path, row: object) -> LlavaFile:
    (root / "l.json").write_text(json.dumps([row]))
    return LlavaFile(path=str(root / "l.json"), root=str(root))


def chat(*values: str, **fields: object) -> Row:
    said = [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]
    return {"id": "7", "conversations": said, **fields}


def test_captions(root: Path) -> None:
    dataset = captions(
        root, '{"image": "a.png", "text": "A blue square."}', "", '{"image": "a.png", "text": "é"}'
    ).build()
    assert len(dataset) == 2
    assert [turn.text for turn in dataset[0].turns] == ["<image>", "A blue square."]
    assert dataset[0].images[0].load().getpixel((0, 0)) == (10, 20, 30)
    assert dataset[1].id == "c.jsonl line 3"
    asked = CaptionFile(path=str(root / "c.jsonl"), root=str(root), question="Describe it.")
    assert first(asked).turns[0].text == "<image>\nDescribe it."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png", "text": ', r"c\.jsonl line 2 is not valid JSON.*column"),
        ("[1]", r"c\.jsonl line 2 must be one JSON object, got list"),
        ('{"image": "a.png"}', r"c\.jsonl line 2 needs a text field 'text'.*\['image'\]"),
        ('{"image": 5, "text": "a"}', r"line 2 needs a text field 'image'"),
        ('{"image": "a.png", "text": "  "}', r"line 2: a caption is text"),
        ('{"image": "a.png", "text": "an <image> here"}', r"line 2: a caption is text without <image>"),
        ("[" * 100_000, r"line 2 is nested too deep"),
        ('{"image": "a.png", "text": ' + "1" * 5_000 + "}", r"line 2 cannot be read: Exceeds the limit"),
        ('{"image": "a.png", "text": "\\ud800"}', r"line 2 holds half of a surrogate pair"),
    ],
)
def test_a_malformed_line_is_named(root: Path, line: str, message: str) -> None:
    dataset = captions(root, '{"image": "a.png", "text": "good"}', line).build()
    assert dataset[0].turns[1].text == "good"
    with pytest.raises(ValueError, match=message):
        dataset[1]


def test_bytes_that_are_not_utf8_are_named(root: Path) -> None:
    (root / "c.jsonl").write_bytes(b'{"image": "a.png", "text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"c\.jsonl line 1 is not UTF-8"):
        first(CaptionFile(path=str(root / "c.jsonl"), root=str(root)))


def test_an_endless_line_is_refused_unread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.data.sources.json_lines.MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr("isthmus.data.sources.json_lines._CHUNK", 64)
    dataset = captions(
        root, json.dumps({"image": "a.png", "text": "x" * 2_000}), '{"image": "a.png", "text": "b"}'
    ).build()
    with pytest.raises(ValueError, match=r"line 1 has 20.. bytes, more than the 1000"):
        dataset[0]
    assert dataset[1].turns[1].text == "b"


def test_texts(root: Path) -> None:
    (root / "t.jsonl").write_text('{"text": "alone"}\n{"question": "q?", "text": "a", "id": 3}\n{"text": "<image>"}\n')
    dataset = TextFile(path=str(root / "t.jsonl")).build()
    assert [turn.text for turn in dataset[0].turns] == ["alone"]
    assert [turn.text for turn in dataset[1].turns] == ["q?", "a"]
    assert dataset[1].id == "3"
    with pytest.raises(ValueError, match="brings no images"):
        dataset[2]


def test_llava_conversations(root: Path) -> None:
    sample = first(llava(root, chat("What is it?\n<image>", "A square.", "And now?", "Still.", image="a.png")))
    assert sample.id == "7"
    assert [(turn.role, turn.text) for turn in sample.turns] == [
        ("user", "<image>\nWhat is it?"),
        ("assistant", "A square."),
        ("user", "And now?"),
        ("assistant", "Still."),
    ]
    assert len(sample.images) == 1
    assert first(llava(root, chat("Hello?", "Hello."))).images == ()
    two = first(llava(root, chat("<image> or <image>?", "The first.", image=["a.png", "a.png"])))
    assert two.turns[0].text == "<image> or <image>?"
    assert len(two.images) == 2
    (root / "l.jsonl").write_text(json.dumps(chat("<image>?", "Yes.", image="a.png")) + "\n")
    assert first(LlavaFile(path=str(root / "l.jsonl"), root=str(root))).turns[0].text == "<image>\n?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (chat("What is it?", "A square.", image="a.png"), r"item 0 \(id '7'\) has 0 <image> marks and 1 images"),
        (chat("<image>?", "A square."), "1 <image> marks and 0 images"),
        (chat("<image>?", "An <image>.", image="a.png"), "2 <image> marks and 1 images"),
        (chat("<image>" * 17, "Many.", image=["a.png"] * 17), "17 images, more than max_images=16"),
        (chat("<image>?", "A.", image={"a": 1}), "a path or a list of paths"),
        (chat("<image>?", image="a.png"), "no turn from 'gpt'"),
        (chat("<image>?", "\ud800", image="a.png"), "half of a surrogate pair"),
        ({"id": 1, "conversations": []}, "needs a list `conversations`"),
        ({"id": 1, "conversations": [{"from": "robot", "value": "x"}]}, "turn 0: a turn is"),
        ({"id": 1, "conversations": [{"from": "human", "value": 5}]}, "turn 0: a turn is"),
        ({"id": 1, "conversations": ["x"]}, "turn 0: a turn is"),
        ("text", "must be a JSON object, got str"),
    ],
)
def test_a_wrong_conversation_is_named(root: Path, row: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        first(llava(root, row))
    assert "l.json item 0" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 1},\n {"id": ]', r"l\.json line 2 is not valid JSON"),
        (b'{"id": 1}', r"l\.json must be a JSON list of conversations, got dict"),
        (b"\xff\xfe", "cannot|not a JSON text"),
        (b"[" * 100_000, "not a JSON text that can be read"),
    ],
)
def test_a_malformed_file_is_named(root: Path, content: bytes, message: str) -> None:
    (root / "l.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        LlavaFile(path=str(root / "l.json"), root=str(root)).build()


@pytest.mark.parametrize("made", [CaptionFile, LlavaFile])
def test_a_missing_file_is_named(made: Callable[..., SourceConfig], root: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*gone\.json"):
        made(path=str(root / "gone.json"), root=str(root)).build()


def test_hostile_images_are_counted_skips_that_end_no_run(root: Path) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (root / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    out = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(out, "JPEG")
    (root / "cut.jpg").write_bytes(out.getvalue()[:900])
    images = ["a.png"] * 8 + ["bomb.png", "cut.jpg", "gone.png", "../a.png", "/etc/passwd"]
    lines = [json.dumps({"image": image, "text": "A picture."}) for image in images]
    mixture = Mixture((Source(of=captions(root, *lines, "{broken")),), seed=0)
    drawn = [mixture[position] for position in range(2 * len(mixture))]
    assert len(drawn) == 28
    assert {image.path for sample in drawn for image in sample.images} == {"a.png"}  # type: ignore[attr-defined]
    reasons = {skip.index: skip.reason for skip in mixture.skipped.values()}
    assert sorted(reasons) == [8, 9, 10, 11, 12, 13]
    for index, word in (
        (8, "bomb.png"),
        (9, "cut.jpg"),
        (10, "gone.png"),
        (11, "leaves"),
        (12, "passwd"),
        (13, "line 14"),
    ):
        assert word in reasons[index]
