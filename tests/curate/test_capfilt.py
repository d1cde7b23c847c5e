"""CapFilt by literal captions and scores: what is kept, what a stop leaves, and what the report says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from isthmus.curate import Curation, Pictured, curate, pictures_in, pictures_of, rendered
from isthmus.curate.capfilt import choose
from isthmus.curate.report import bins
from isthmus.curate.shards import Judged
from isthmus.data.sample import ImageRef
from isthmus.data.sources import CaptionFile

COLOURS = ("red", "green", "blue", "white", "black")


class Writer:
    """Captions of drawn numbers, equal for equal random states; stops when it is told to."""

    name = "writer <b>"

    def __init__(self, stop_after: int = 1_000) -> None:
        self.left = stop_after
        self.batches: list[int] = []

    def caption(self, images: Sequence[ImageRef], num: int) -> list[list[str]]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.batches.append(len(images))
        return [[f" number  {int(torch.randint(50, (1,)))} " for _ in range(num)] for _ in images]


class Judge:
    """Scores a text by its number; what came with an image scores 35."""

    name, meaning = "judge", "number in the text"

    def scores(self, images: Sequence[ImageRef], texts: Sequence[str], owners: Sequence[int]) -> list[float]:
        assert all(0 <= owner < len(images) for owner in owners)
        return [float(text.split()[-1]) if text.startswith("number") else 35.0 for text in texts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (20 + number, 16), colour).save(tmp_path / "images" / "deep" / f"{number}.png")
    return tmp_path / "images"


def test_the_best_are_kept_and_read_back_as_training_data(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text(
        "".join(json.dumps({"image": f"deep/{n}.png", "text": text}) + "\n" for n in range(5) for text in ("came", "x"))
    )
    pictures = pictures_of(tmp_path / "web.jsonl", folder)
    assert (pictures[0].path, pictures[0].texts) == ("deep/0.png", ("came", "x"))
    done = curate(Curation(candidates=3, keep=2, least=15.0, shard=2), pictures, Writer(), Judge(), tmp_path / "out")
    lines = [json.loads(line) for line in done.captions.read_text().splitlines()]
    assert len(lines) == done.num_kept == 10
    assert all(line["score"] >= 15.0 for line in lines)
    assert {line["source"] for line in lines} == {"writer <b>", "given"}
    every = [json.loads(x) for p in sorted((tmp_path / "out" / "shards").iterdir()) for x in p.read_text().splitlines()]
    for image in {line["image"] for line in lines}:
        mine = sorted((one["score"] for one in every if one["image"] == image), reverse=True)
        assert [line["score"] for line in lines if line["image"] == image] == mine[:2]
    assert len(every) == done.num_kept + done.num_dropped
    samples = CaptionFile(path=str(done.captions), root=str(folder)).build()
    assert [sample.turns[1].text for sample in (samples[i] for i in range(len(samples)))] == [x["text"] for x in lines]
    assert samples[0].images[0].load().size == (20, 16)
    page = done.report.read_text()
    assert "10 of" in page
    assert "writer &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('class="mark yes"') == 10
    assert 'class="mark no"' in page
    assert page.count("data:image/jpeg") == 5


def test_a_stopped_curation_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    curation, pictures = Curation(candidates=3, shard=2), pictures_in(folder)
    whole = curate(curation, pictures, Writer(), Judge(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        curate(curation, pictures, Writer(stop_after=2), Judge(), tmp_path / "cut")
    assert sorted(path.name for path in (tmp_path / "cut" / "shards").iterdir()) == ["00000.jsonl", "00001.jsonl"]
    rest = Writer()
    cut = curate(curation, pictures, rest, Judge(), tmp_path / "cut")
    assert rest.batches == [1]
    assert cut.captions.read_bytes() == whole.captions.read_bytes()
    assert cut.report.read_bytes() == whole.report.read_bytes()
    for other in (replace(curation, keep=2), replace(curation, seed=1)):
        with pytest.raises(ValueError, match=r"another curation: it differs in curation"):
            curate(other, pictures, Writer(), Judge(), tmp_path / "cut")
    with pytest.raises(ValueError, match="it differs in images, num_images"):
        curate(curation, pictures[:4], Writer(), Judge(), tmp_path / "cut")


def test_broken_images_are_named_and_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "1.png").write_bytes(b"no image")
    done = curate(Curation(candidates=1), pictures_in(folder), Writer(), Judge(), tmp_path / "out")
    assert len(done.unreadable) == 1
    assert done.unreadable[0].startswith("deep/1.png: ")
    assert done.num_kept == 4
    assert "Images that could not be read" in done.report.read_text()


def test_captions_that_came_can_be_filtered_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text('{"image": "deep/0.png", "text": "number 3"}\n{"image": "deep/1.png"}\n')
    pictures = pictures_of(tmp_path / "web.jsonl", folder)
    done = curate(Curation(candidates=0, least=4.0), pictures, Writer(0), Judge(), tmp_path / "out")
    assert (done.num_kept, done.num_dropped) == (0, 1)


def test_choosing_by_literal_scores() -> None:
    texts = [Judged(image="a", text=str(n), source="", score=s) for n, s in enumerate((1.0, 3.0, 3.0, float("-inf")))]
    chosen = choose(Curation(keep=2), texts)
    assert [(one.text, one.kept, one.rank) for one in chosen] == [
        ("1", True, 0), ("2", True, 1), ("0", False, 2), ("3", False, 3),
    ]  # fmt: skip
    assert [one.kept for one in choose(Curation(keep=9), texts)] == [True, True, True, False]
    assert [one.kept for one in choose(Curation(keep=9, least=2.0), texts)] == [True, True, False, False]
    assert sum(one.kept + one.dropped for one in bins(texts)) == 3
    assert bins([]) == []


def test_pictures_of_a_source_are_rendered_once(folder: Path, tmp_path: Path) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_text("".join(f'{{"image": "deep/{n}.png", "text": "t"}}\n' for n in (0, 1, 0)))
    source = CaptionFile(path=str(lines), root=str(folder)).build()
    made = rendered(source, range(3), tmp_path / "made")
    assert len(made) == 2
    assert [one.image.load().size for one in made] == [(20, 16), (21, 16)]


def test_mistakes_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image files"):
        pictures_in(tmp_path / "images" / "none")
    with pytest.raises(ValueError, match="keep and shard must be 1 or more"):
        Curation(keep=0)
    with pytest.raises(ValueError, match="no images to caption"):
        curate(Curation(), [], Writer(), Judge(), tmp_path / "out")
    assert isinstance(pictures_in(folder)[0], Pictured)
