"""CapFilt from end to end on the bundled backbones: written by eye and speaker, ranked by eye and reader."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.cli.main import INTERRUPTED, main
from isthmus.curate import RunCaptioner, rendered
from isthmus.data.captions import caption_of
from isthmus.data.sample import ImageRef
from isthmus.data.sources import CaptionFile, Source
from isthmus.llms import Generation
from isthmus.recipes import RECIPES
from isthmus.runs import Run
from isthmus.train.loop import train

NUM, CANDIDATES, KEEP = 5, 3, 2
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer, a first stage, and pictures of scenes with their descriptions."""
    root = tmp_path_factory.mktemp("bundled-curation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(root / "cache"))
        for name, recipe in (("writer", "quickstart"), ("aligned", "blip2/tiny-stage1")):
            stage = replace(RECIPES[recipe](), start_from=None, steps=2, batch_size=4, validation=())
            train(stage, root / name, progress=False)
    [source] = [one.of for one in RECIPES["blip2/tiny-stage1"]().validation]
    scenes = source.build()
    pictures = rendered(scenes, range(NUM), root / "images")
    lines = [{"image": picture.path, "text": caption_of(scenes[number])} for number, picture in enumerate(pictures)]
    assert len(lines) == NUM
    (root / "scenes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def curation(root: Path, out: Path, ranker: str) -> list[str]:
    models = ["--captioner", str(root / "writer"), "--ranker", str(root / ranker), "--prompt", "Describe the picture."]
    numbers = ["--candidates", str(CANDIDATES), "--keep", str(KEEP), "--shard", "2", "--max-new-tokens", "12"]
    return ["curate", str(root / "scenes.jsonl"), "--root", str(root / "images"), "--out", str(out), *models, *numbers]


@pytest.mark.parametrize("ranker", ["aligned", "writer"])
def test_the_best_of_what_the_speaker_wrote_are_kept(root: Path, tmp_path: Path, ranker: str) -> None:
    assert main(curation(root, tmp_path / "out", ranker)) == 0
    kept = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    shards = sorted((tmp_path / "out" / "shards").iterdir())
    every = [json.loads(line) for path in shards for line in path.read_text().splitlines()]
    assert len(shards) == 3
    assert len({line["image"] for line in kept}) == NUM
    judge = Run(root / ranker)
    for image in {line["image"] for line in kept}:
        mine = [line for line in every if line["image"] == image]
        assert 2 <= len(mine) <= CANDIDATES + 1
        assert sum(line["source"] == "given" for line in mine) == 1
        best = sorted((line["score"] for line in mine), reverse=True)
        assert [line["score"] for line in kept if line["image"] == image] == best[:KEEP]
        assert len(set(best)) > 1
    assert {line["source"] for line in every} == {"given", RunCaptioner(Run(root / "writer"), Generation()).name}
    assert all(judge.stage_json["model_fingerprint"] in line["ranker"] for line in kept)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="mark yes"') == len(kept)
    assert 'class="mark no"' in page
    assert page.count("data:image/jpeg") == NUM


def test_a_stopped_curation_is_gone_on_with_and_trained_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(curation(root, tmp_path / "whole", "aligned")) == 0
    whole = RunCaptioner.caption
    asked: list[int] = []

    def stopping(self: RunCaptioner, images: Sequence[ImageRef], num: int) -> list[list[str]]:
        asked.append(len(images))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return whole(self, images, num)

    monkeypatch.setattr(RunCaptioner, "caption", stopping)
    assert main(curation(root, tmp_path / "cut", "aligned")) == INTERRUPTED
    assert len(list((tmp_path / "cut" / "shards").iterdir())) == 1
    assert main(curation(root, tmp_path / "cut", "aligned")) == 0
    assert asked == [2, 2, 2, 1]  # the first shard was not written again
    for name in ("captions.jsonl", "report.html"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    monkeypatch.setenv("ISTHMUS_CACHE", str(root / "cache"))
    made = Source(of=CaptionFile(path=str(tmp_path / "cut" / "captions.jsonl"), root=str(root / "images")))
    stage = replace(RECIPES["blip2/tiny-stage1"](), start_from=None, data=(made,), steps=1, batch_size=4, validation=())
    assert train(stage, tmp_path / "trained", progress=False).result["skipped"] == []
