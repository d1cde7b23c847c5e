"""A study whose arms are the ways to tile an image, from their trainings to the report."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from test_tiled_training import WAYS, Sheets
from tiny_stage import tiny_stage

from isthmus.compare.run import REPORT_FILE, run_study
from isthmus.compare.study import Arm, Study
from isthmus.data.sources.base import Source
from isthmus.encoders import VisionEncoder


@pytest.mark.long
def test_every_way_to_tile_is_an_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    base = tiny_stage(tmp_path, steps=2, data=(Source(of=Sheets()),), validation=(Source(of=Sheets(num=3)),))
    encoder, llm = base.model.encoder, base.model.llm
    assert isinstance(encoder, VisionEncoder)
    assert llm is not None
    base = replace(base, model=replace(base.model, llm=replace(llm, max_tokens=128)))
    arms = tuple(
        Arm(
            name=way,
            replace=(
                ("model.encoder", replace(encoder, tiles=tiles)),
                ("model.arrange", arrange),
                ("train", ("connector", "arrange") if arrange.parameters(base.model.target()) else ("connector",)),
            ),
        )
        for way, (tiles, arrange) in WAYS.items()
    )
    study = Study(
        name="ways",
        base=base,
        arms=arms,
        seeds=(1, 2),
        tune_rates=(1e-3,),
        tasks=("world/count",),
        headline=("world/count",),
        items_per_task=2,
        headline_items=2,
        control_items=2,
        watch_items=2,
        text_only=None,
    )
    results, verdict = run_study(study, tmp_path / "study", workers=1, progress=False)
    assert results.failures == ()
    assert {judged.arm for judged in verdict.arms} == set(WAYS)
    page = (tmp_path / "study" / REPORT_FILE).read_text(encoding="utf-8")
    assert [way for way in WAYS if way not in page] == []
