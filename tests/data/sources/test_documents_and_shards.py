"""Interleaved documents and tar shards, right and wrong; and a shard trained from as a caption file is."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from isthmus.data.prompts import Plain, QuestionAnswer
from isthmus.data.sample import Sample
from isthmus.data.sources import DocumentFile, TarShards


def picture(colour: tuple[int, int, int] = (10, 20, 30)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture())
    return tmp_path


def documents(root: Path, *rows: object) -> DocumentFile:
    (root / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DocumentFile(path=str(root / "d.jsonl"), root=str(root), max_images=2)


def shard(path: Path, **members: bytes) -> TarShards:
    """A tar file whose members are named with two underscores for a dot."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return TarShards(path=str(path))


def written(sample: Sample) -> str:
    return "|".join("{image}" if one.image else one.text for one in QuestionAnswer().render(sample))


def test_a_document_is_one_text_with_its_images_in_place(root: Path) -> None:
    lists = {"texts": ["Two cats.", None, "They sleep.", None], "images": [None, "a.png", None, "b.png"]}
    short = {"id": "p7", "text": "Two cats. <image> They sleep. <image>", "images": ["a.png", "b.png"]}
    first, second = list(documents(root, lists, short).build())
    assert first.turns == second.turns
    assert (first.id, second.id) == ("d.jsonl line 1", "p7")
    assert [image.path for image in first.images] == ["a.png", "b.png"]
    assert written(first).startswith("Two cats. |{image}| They sleep. |{image}")
    assert all(one.supervised or one.image for one in QuestionAnswer().render(first))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "No marks.", "images": ["a.png"]}, r"d\.jsonl line 1 has the marks \[\] and 1 images"),
        ({"text": "<image> <video>", "images": ["a.png", "b.png"]}, "and no other mark"),
        ({"text": "<image>", "images": ["a.png"]}, "line 1 has no text to learn"),
        ({"text": "a" + "<image>" * 3, "images": ["a.png"] * 3}, "3 images, more than max_images=2"),
        ({"text": "a <image>", "images": "a.png"}, "needs a list `images` of paths"),
        ({"texts": ["a", None], "images": [None]}, "lists of one length"),
        ({"texts": ["a", "b"], "images": [None, "a.png"]}, "line 1, place 1: either a text or an image"),
        ({"texts": ["a", None], "images": [None, None]}, "place 1: either a text or an image"),
        ({"texts": ["an <image>", None], "images": [None, "a.png"]}, "place 0: a text in `texts` holds no mark"),
        ({"texts": [3, None], "images": [None, "a.png"]}, "place 0: either a text or an image"),
        ([], "must be one JSON object"),
    ],
)
def test_a_wrong_document_is_named(root: Path, row: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        documents(root, row).build()[0]


def test_shards_are_read_in_place_in_the_order_of_their_names(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A square."}]
    shard(tmp_path / "s-1.tar", x__png=picture(), x__json=json.dumps({"conversations": talk}).encode())
    shard(tmp_path / "s-0.tar", **{"in/1__png": picture((1, 2, 3)), "in/1__txt": b"One.\n"}, y__cls=b"3")
    made = TarShards(path=str(tmp_path / "s-*.tar"), question="Say.").build()
    assert len(made) == 3
    assert made[0].id == "s-0/in/1"
    assert [turn.text for turn in made[0].turns] == ["<image>\nSay.", "One."]
    assert made[0].images[0].load().getpixel((0, 0)) == (1, 2, 3)
    assert [turn.text for turn in made[2].turns] == ["<image>\nWhat?", "A square."]
    assert Plain().render(made[2])
    with pytest.raises(ValueError, match=r"s-0\.tar, sample 'y' has cls: it needs a picture"):
        made[1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__png": picture(), "a__txt": b"  "}, "sample 'a': a caption is text"),
        ({"a__png": picture(), "a__txt": b"\xff"}, "not UTF-8 text"),
        ({"a__png": picture(), "a__json": b"{"}, "is not valid JSON"),
        ({"a__png": picture(), "a__json": b"{}"}, "needs a text field 'caption'"),
        ({"a__png": picture(), "a__json": b'{"conversations": []}'}, "needs a list `conversations`"),
        ({"a__txt": b"alone"}, "has txt: it needs a picture"),
    ],
)
def test_a_wrong_sample_of_a_shard_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shard(tmp_path / "s.tar", **members).build()[0]


def test_links_are_passed_over_and_a_broken_picture_is_named(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", a__png=b"no picture", a__txt=b"One.")
    with tarfile.open(tmp_path / "s.tar", "a") as archive:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    made = TarShards(path=str(tmp_path / "s.tar")).build()
    assert len(made) == 1
    with pytest.raises(ValueError, match=r"s\.tar@\d+ is not a readable"):
        made[0].images[0].load()


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file"):
        TarShards(path=str(tmp_path / "*.tar")).build()
    with tarfile.open(tmp_path / "c.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(ValueError, match=r"c\.tar is no tar file that can be read in place.*gunzip"):
        TarShards(path=str(tmp_path / "c.tar")).build()
    shard(tmp_path / "s.tar", a__png=picture() * 50, a__txt=b"One.")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "s.tar").read_bytes()[:1_000])
    with pytest.raises(ValueError, match=r"cut\.tar is no tar file"):
        TarShards(path=str(tmp_path / "cut.tar")).build()
