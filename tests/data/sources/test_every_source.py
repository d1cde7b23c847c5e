"""Promises that every source keeps, by being listed."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from isthmus.config import from_json, to_json
from isthmus.data.sample import Sample
from isthmus.data.sources import (
    SOURCES,
    TYPES,
    CaptionFile,
    ClipFile,
    ClipWindows,
    DocumentFile,
    DrawnDigits,
    Formatted,
    Interleaved,
    LlavaFile,
    Mosaics,
    MovingThings,
    NlvrBoxes,
    RealClips,
    SmallThings,
    Source,
    SourceConfig,
    SplitCaptions,
    SpokenDigits,
    TarShards,
    Textbook,
    TextFile,
    WorldBoxes,
    WorldCaptions,
    WorldChat,
    WorldStyle,
    WorldTwins,
)

MEDIA = Path(__file__).parents[1] / "media"


def config_of(made: type[SourceConfig], folder: Path) -> SourceConfig:
    """A small config of this type, with its files written."""
    if made in (SmallThings, WorldBoxes, WorldTwins):
        return made(num_scenes=20)  # type: ignore[call-arg]
    if made in (DrawnDigits, MovingThings):
        return made(num=20)  # type: ignore[call-arg]
    if made in (WorldChat, WorldCaptions):
        return made(num_scenes=20, style=WorldStyle(chart=0.3))  # type: ignore[call-arg]
    if made in (Textbook, NlvrBoxes, SpokenDigits, RealClips):
        return made()
    image = folder / "a.png"
    SourceImage.write(image)
    if made is CaptionFile:
        lines(folder / "c.jsonl", {"image": "a.png", "text": "A grey square."})
        return CaptionFile(path=str(folder / "c.jsonl"), root=str(folder))
    if made in (ClipFile, ClipWindows):
        shutil.copy(MEDIA / "classroom.mp4", folder / "a.mp4")
        lines(folder / "v.jsonl", {"video": "a.mp4", "text": "People at tables."})
        clips = ClipFile(path=str(folder / "v.jsonl"), root=str(folder))
        return clips if made is ClipFile else ClipWindows(of=clips, num=20)
    if made is TextFile:
        lines(folder / "t.jsonl", {"text": "All by itself."})
        return TextFile(path=str(folder / "t.jsonl"))
    if made is SplitCaptions:
        lines(folder / "c.jsonl", {"image": "a.png", "text": "A grey square and nothing else."})
        return SplitCaptions(of=CaptionFile(path=str(folder / "c.jsonl"), root=str(folder)))
    if made is DocumentFile:
        lines(folder / "d.jsonl", {"texts": ["A square.", None], "images": [None, "a.png"]})
        return DocumentFile(path=str(folder / "d.jsonl"), root=str(folder))
    if made is TarShards:
        (folder / "a.txt").write_text("A grey square.")
        with tarfile.open(folder / "s.tar", "w") as shard:
            for name in ("a.png", "a.txt"):
                shard.add(folder / name, name)
        return TarShards(path=str(folder / "*.tar"))
    said = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "A square."}]
    (folder / "l.json").write_text(json.dumps([{"id": "0", "image": "a.png", "conversations": said}]))
    chat = LlavaFile(path=str(folder / "l.json"), root=str(folder))
    if made is Formatted:
        return Formatted(of=chat, wanted="short")
    if made is Mosaics:
        return Mosaics(of=chat, columns=2)
    return Interleaved(of=chat) if made is Interleaved else chat


class SourceImage:
    @staticmethod
    def write(path: Path) -> None:
        Image.new("RGB", (8, 8), (90, 90, 90)).save(path)


def lines(path: Path, *rows: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("made", SOURCES, ids=lambda made: made.__name__)
def test_every_source_keeps_its_promises(made: type[SourceConfig], tmp_path: Path) -> None:
    config = config_of(made, tmp_path)
    dataset, again = config.build(), config.build()
    assert len(dataset) == len(again) >= 1
    for index in {0, len(dataset) // 2, len(dataset) - 1}:
        sample = dataset[index]
        assert isinstance(sample, Sample)
        assert sample == again[index]
        assert [image.key for image in sample.images] == [image.key for image in again[index].images]
        assert any(turn.role == "assistant" and turn.text for turn in sample.turns)
        assert all(image.load().mode == "RGB" for image in sample.images)
        assert [video.key for video in sample.videos] == [video.key for video in again[index].videos]
        assert all(video.load().frames for video in sample.videos)
        assert [sound.key for sound in sample.sounds] == [sound.key for sound in again[index].sounds]
        heard: list[Any] = [sound.load() for sound in sample.sounds]  # DrawnDigits shows pictures there
        assert all(isinstance(one, Image.Image) or len(one.samples) for one in heard)
    assert len({dataset[index].id for index in range(min(20, len(dataset)))}) == min(20, len(dataset))
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("made", SOURCES, ids=lambda made: made.__name__)
def test_every_source_reads_back_from_json(made: type[SourceConfig], tmp_path: Path) -> None:
    source = Source(of=config_of(made, tmp_path), weight=2.5)
    assert from_json(json.loads(json.dumps(to_json(source))), TYPES) == source
