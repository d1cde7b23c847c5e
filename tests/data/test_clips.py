"""Captioned clips from a file, cut into windows that share no frame, and what is said of a row that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest
from making import level, write_sound, write_video

from isthmus.data.frames import UniformFrames
from isthmus.data.sample import VIDEO_MARK
from isthmus.data.sources import ClipFile, ClipWindows, RealClips
from isthmus.data.sources.real_clips import FOLDER, PARTS, QUESTION, questions
from isthmus.data.video import FileVideo

GREYS = list(range(20, 220, 10))
"""Of a clip of two seconds, ten frames a second."""


def clip_file(folder: Path, *rows: dict[str, object], **choices: object) -> ClipFile:
    write_video(folder / "greys.mp4", GREYS)
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ClipFile(path=str(folder / "clips.jsonl"), root=str(folder), **choices)  # type: ignore[arg-type]


def greys(video: object) -> list[int]:
    assert isinstance(video, FileVideo)
    return [round(level(frame) / 10) * 10 for frame in video.load().frames]


def test_a_clip_its_part_and_its_text(tmp_path: Path) -> None:
    rows = (
        {"video": "greys.mp4", "text": "It grows light.", "id": "dawn"},
        {"video": "greys.mp4", "text": "Later.", "start_s": 1, "end_s": 1.35},
    )
    clips = clip_file(tmp_path, *rows, question="What happens?", frames=UniformFrames(num=2)).build()
    whole, part = clips[0], clips[1]
    assert (whole.id, part.id) == ("dawn", "clips.jsonl line 2")
    assert [turn.text for turn in whole.turns] == [f"{VIDEO_MARK}\nWhat happens?", "It grows light."]
    assert (greys(whole.videos[0]), greys(part.videos[0])) == ([20, 210], [120, 150])
    bare = clip_file(tmp_path, *rows).build()
    assert bare[0].turns[0].text == VIDEO_MARK


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"video": "greys.mp4", "text": " "}, r"line 1: a caption is text without marks, got ' '"),
        ({"video": "greys.mp4", "text": "A <video> mark."}, r"line 1: a caption is text without marks"),
        ({"video": "greys.mp4"}, r"line 1 needs a text field 'text'"),
        ({"video": "gone.mp4", "text": "x"}, r"line 1 names no video file: .*gone\.mp4"),
        ({"video": "../greys.mp4", "text": "x"}, r"line 1 names no video file: .*leaves its root"),
        ({"video": "greys.mp4", "text": "x", "start_s": "1"}, r"line 1: `start_s` is a number of seconds, got '1'"),
        ({"video": "greys.mp4", "text": "x", "start_s": 2, "end_s": 1}, r"line 1 goes from start_s 2\.0 to end_s 1\.0"),
        ({"video": "greys.mp4", "text": "x", "start_s": -1}, r"line 1 goes from start_s -1\.0"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, object], said: str, tmp_path: Path) -> None:
    clips = clip_file(tmp_path, row).build()
    with pytest.raises(ValueError, match=said):
        clips[0]


def test_a_missing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file '.*none\.jsonl'"):
        ClipFile(path=str(tmp_path / "none.jsonl"), root=str(tmp_path)).build()
    with pytest.raises(ValueError, match=r"clips\.jsonl' has no row"):
        clip_file(tmp_path).build()


def test_windows_of_two_parts_share_no_frame_and_miss_none(tmp_path: Path) -> None:
    clips = clip_file(tmp_path, {"video": "greys.mp4", "text": "x", "id": "a"}, frames=UniformFrames(num=4))
    first, rest = (ClipWindows(of=clips, part=part, seconds=0.3, num=50).build() for part in ((0.0, 0.5), (0.5, 1.0)))
    seen, held = (
        {grey for index in range(len(windows)) for grey in greys(windows[index].videos[0])} for windows in (first, rest)
    )
    assert (sorted(seen), sorted(held)) == (GREYS[:10], GREYS[10:])
    assert len({first[index].id for index in range(len(first))}) == len(first) == 7
    assert first[0].meta["clip"] == "a"
    some = ClipWindows(of=clips, part=(0.0, 0.5), seconds=0.3, num=3).build()
    assert [greys(some[index].videos[0])[0] for index in range(len(some))] == [20, 50, 80]


def test_windows_lie_inside_the_rows_own_part(tmp_path: Path) -> None:
    row = {"video": "greys.mp4", "text": "x", "start_s": 1.0, "end_s": 1.95}
    windows = ClipWindows(of=clip_file(tmp_path, row), part=(0.0, 0.5), seconds=0.2, num=2).build()
    starts = [window.videos[0].start_s for window in (windows[0], windows[1])]  # type: ignore[attr-defined]
    assert starts == pytest.approx([1.0, 1.2])


def test_what_cannot_be_cut_is_named(tmp_path: Path) -> None:
    clips = clip_file(tmp_path, {"video": "greys.mp4", "text": "x", "id": "a"})
    with pytest.raises(ValueError, match=r"a: the part \(0\.0, 0\.1\) of a clip of 1\.90 s has no window of 1\.0 s"):
        ClipWindows(of=clips, part=(0.0, 0.1)).build()
    for choice in ({"part": (0.5, 0.5)}, {"part": (0.0, 1.2)}, {"seconds": 0.0}, {"num": 0}):
        with pytest.raises(ValueError, match="a part lies in order within"):
            ClipWindows(of=clips, **choice)  # type: ignore[arg-type]
    write_sound(tmp_path / "heard.mp4", np.zeros(800), 8_000)
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    for name, said in (("heard.mp4", r"b: .*heard\.mp4.* holds no video"), ("broken.mp4", r"b: .*broken\.mp4.*broken")):
        unreadable = clip_file(tmp_path, {"video": name, "text": "x", "id": "b"})
        with pytest.raises(ValueError, match=said):
            ClipWindows(of=unreadable).build()


def test_the_bundled_clips_are_asked_about_at_moments_that_training_never_shows() -> None:
    moments: dict[tuple[str, str], set[float]] = {}
    for split in PARTS:
        windows = RealClips(split=split).build()
        assert len({windows[index].meta["clip"] for index in range(len(windows))}) == 11
        for index in range(len(windows)):
            video = windows[index].videos[0]
            assert isinstance(video, FileVideo)
            moments.setdefault((split, video.path), set()).update(video.moments())
    for clip in {path for _, path in moments}:
        train, val, test = (moments[split, clip] for split in ("train", "val", "test"))
        assert max(train) < min(val) <= max(val) < min(test)


def test_a_question_about_a_bundled_clip() -> None:
    items = questions(100)
    assert len(items) == 41
    assert {item.turns[0].text for item in items} == {f"{VIDEO_MARK}\n{QUESTION}"}
    assert len({item.meta["answers"] for item in items}) == 11 == len(items[0].meta["choices"])
    assert items[0].meta["answers"][0] in items[0].meta["choices"]
    assert items[0].meta["chance"] == pytest.approx(1 / 11)
    assert len({item.meta["group"] for item in items}) == 11
    assert len(items[0].videos[0].load().frames) == 4


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    clip_file(tmp_path, {"video": "greys.mp4", "text": "It grows light."})
    windows = RealClips(folder=str(tmp_path), seconds=0.2, windows=2).build()
    assert [windows[index].turns[1].text for index in range(len(windows))] == ["It grows light."] * 2
    assert greys(windows[0].videos[0]) == [20, 20, 30, 40]
    with pytest.raises(ValueError, match=r"No clips\.jsonl in '.*none': write one line a clip"):
        RealClips(folder=str(tmp_path / "none")).build()


def test_every_bundled_clip_names_its_licence() -> None:
    rows = [json.loads(line) for line in (FOLDER / "clips.jsonl").read_text().splitlines()]
    assert sorted(row["video"] for row in rows) == sorted(path.name for path in FOLDER.glob("*.mp4"))
    assert all(row["license"].startswith("CC BY") and row["source_repo"] for row in rows)
    said = (FOLDER / "README.md").read_text()
    assert "Attribution 4.0" in said
    assert "Attribution 3.0" in said
