"""Controls hold for clips and sounds as for pictures: nothing of the one that is asked about reaches the model."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from medley import Flicker, Hum, medley_stage

from isthmus.data.collate import Batch
from isthmus.data.sample import Sample, Turn
from isthmus.encoders import CachedEncoder, FeatureCache, Untiled
from isthmus.evaluate.runner import evaluate, sights_of
from isthmus.evaluate.sight import Sight, Unkept
from isthmus.llms import Generation
from isthmus.model import VisionLanguageModel

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    torch.manual_seed(0)
    return VisionLanguageModel(medley_stage(tmp_path_factory.mktemp("models")).model).eval()


@pytest.fixture
def eye(model: VisionLanguageModel, tmp_path: Path) -> CachedEncoder:
    return CachedEncoder(model.config.encoder, FeatureCache(tmp_path))


def heard(number: int) -> Sample:
    asked = Turn(role="user", text="<audio>\nWhich?")
    hum = Hum(number=number, seconds=0.2 + 0.2 * number)
    return Sample(id=f"sound/{number}", turns=(asked,), sounds=(hum,), meta={"answers": ("yes",)})


def watched(number: int) -> Sample:
    asked = Turn(role="user", text="<video>\nWhich?")
    clip = Flicker(number=number, frames=1 + number)
    return Sample(id=f"clip/{number}", turns=(asked,), videos=(clip,), meta={"answers": ("yes",)})


def test_the_mean_of_sounds_stands_for_every_sound(
    model: VisionLanguageModel, eye: CachedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []

    def generate(batch: Batch, options: Generation) -> list[str]:
        batches.append(batch)
        return ["yes"] * len(batch.ids)

    monkeypatch.setattr(model, "generate", generate)
    items = [heard(0), heard(2)]
    assert len(evaluate(model, items, encoder=eye, control="mean-image")) == 2
    (batch,) = batches
    assert len(batch.ids) == 1, "both are one question over the mean"
    ear = model.branches["audio"].built_encoder()
    first, second = (Unkept(encoder=ear, device=CPU).features([Untiled(of=item.sounds[0])])[0] for item in items)
    assert first.valid is not None
    assert second.valid is None
    shown = batch.others["audio"].features
    assert shown is not None
    assert shown.valid is None
    patches = first.grid.rows * first.grid.columns
    torch.testing.assert_close(shown.tokens[:, :patches], (first.tokens + second.tokens)[:, :patches] / 2)
    torch.testing.assert_close(shown.tokens[:, patches:], second.tokens[:, patches:])


@pytest.mark.parametrize("branch", ["video", "image"])
def test_the_mean_of_clips_stands_for_every_clip(
    branch: str, model: VisionLanguageModel, eye: CachedEncoder, tmp_path: Path
) -> None:
    items = [watched(0), watched(2)]
    if branch == "image":
        torch.manual_seed(0)
        model = VisionLanguageModel(replace(model.config, video=None, audio=None)).eval()
    sights = sights_of(model, items, eye, "mean-image")
    mine = sights[branch]  # type: ignore[index]
    assert isinstance(mine, Sight)
    assert mine.mean is not None
    refs = [Untiled(of=item.videos[0]) for item in items]
    shown, plans = mine.features(refs)
    assert [len(plan.views) for plan in plans] == ([1, 1] if branch == "video" else [1, 3])
    assert all(torch.equal(row, shown.tokens[0]) for row in shown.tokens)
    real = mine.encoder.features(refs)[0].tokens
    assert not torch.equal(real[0], real[-1])


def test_padding_is_told_apart_in_every_chunk(model: VisionLanguageModel) -> None:
    video = Unkept(encoder=model.branches["video"].built_encoder(), device=CPU)
    refs = [Untiled(of=Flicker(number=number, frames=3 if number < 16 else 1)) for number in range(18)]
    features = video.features(refs)[0]
    assert features.valid is not None
    assert features.valid.shape == features.patches.shape[:2]
    assert features.valid.sum(dim=1).tolist() == [12] * 16 + [4] * 2
