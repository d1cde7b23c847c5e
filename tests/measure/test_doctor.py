"""The doctor: bands by literal numbers, and every known failure produced on purpose in a small training and named."""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from tiny_stage import Swatches, tiny_stage
from tiny_stage1 import tiny_stage1

from isthmus.cli import doctoring
from isthmus.cli.commands import Doctor
from isthmus.connectors.qformer import QFormer
from isthmus.connectors.qformer_reading import QFormerReading
from isthmus.data.sources.base import Source
from isthmus.features import Text
from isthmus.measure import doctor
from isthmus.measure.checkup import token_signs
from isthmus.measure.doctor import Facts, Verdict, compare_band, judge, majority_loss, tokens_alike
from isthmus.model import VisionLanguageModel
from isthmus.recipes import internvl1
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.objectives import ITG, ITM
from isthmus.train.objectives.base import NotFiniteError
from isthmus.train.stage import AdamW, Stage
from isthmus.train.watch import facts_of, is_due

STEPS = 60
ALIGN = Facts(losses=("itc", "itm", "itg"), num_steps=400, pairs=32, smoothing=0.1)
ANSWER = Facts(losses=("loss",), num_steps=400)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doctor-models")


@pytest.fixture(autouse=True)
def _soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "EARLIEST", 40)


def aligning(root: Path, **changes: Any) -> Stage:
    """Four pictures with a caption each, in every batch."""
    stage = tiny_stage1(root, data=(Source(of=Swatches(num=4)),), validation=(), steps=STEPS, log_every=10)
    return replace(stage, save_every=STEPS, optimizer=AdamW(peak_lr=1e-2, weight_decay=0.0), **changes)


def answering(root: Path, rate: float) -> Stage:
    stage = tiny_stage(root, data=(Source(of=Swatches(num=8)),), validation=(), steps=STEPS, log_every=10)
    return replace(stage, batch_size=8, save_every=STEPS, optimizer=AdamW(peak_lr=rate, weight_decay=0.0))


def verdict_of(stage: Stage, folder: Path) -> Verdict:
    run = train(stage, folder, progress=False)
    verdict = judge(facts_of(stage, STEPS), run.log())
    assert run.log()[-1]["doctor"] == verdict.word
    return verdict


def names(verdict: Verdict) -> set[str]:
    return {one.name for one in verdict.findings}


def test_bands_by_literal_numbers() -> None:
    assert majority_loss(1 / 3) == pytest.approx(0.63651, abs=1e-5)
    assert majority_loss(1 / 2) == pytest.approx(math.log(2))
    chance, least = compare_band(32, 0.1)
    assert chance == pytest.approx(math.log(32))
    target = torch.full((32,), 0.1 / 32).index_add(0, torch.tensor([0]), torch.tensor([0.9]))
    assert least == pytest.approx(float(torch.special.entr(target).sum()), abs=1e-5)
    assert compare_band(1, 0.1) == (0.0, 0.0)
    assert compare_band(2, 0.0) == (math.log(2), 0.0)


def test_looks_are_few_and_the_last_step_has_one() -> None:
    due = [step for step in range(1, 401) if is_due(step, 400, 10)]
    assert due == list(range(20, 401, 20))
    assert [step for step in range(1, 13) if is_due(step, 12, 3)] == []
    assert sum(is_due(step, 250_000, 10) for step in range(1, 250_001)) == 40
    assert is_due(250_000, 250_000, 10)


def test_a_run_that_learns_is_healthy_and_the_command_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = aligning(root, steps=100)  # by 60 steps matching has hardly begun to fall
    verdict = verdict_of(stage, tmp_path / "run")
    assert (verdict.word, verdict.findings) == ("healthy", ())
    last = Run(tmp_path / "run").log()[-1]
    assert {"itm_right_matches", "itm_right_others", "query_rank", "attention_entropy", "temperature"} <= set(last)
    assert last["grad_norm connector.cross"] > 0
    monkeypatch.setattr(doctoring, "saved_stage", lambda folder: stage)
    found = doctoring.diagnose(Doctor(run=tmp_path / "run", num=4))
    assert doctoring.sentences(found.verdict) == ["Healthy: none of the known failures."]
    assert doctoring.table(found).row_count > 10
    assert json.loads(found.path.read_text())["word"] == "healthy"


def test_samples_without_a_caption_are_not_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = aligning(root, data=(Source(of=Swatches(num=8, empty=(0, 3))),), steps=2)
    train(stage, tmp_path / "run", progress=False)
    monkeypatch.setattr(doctoring, "saved_stage", lambda folder: stage)
    found = doctoring.diagnose(Doctor(run=tmp_path / "run", num=8))
    assert found.history.last("query_rank") is not None


def test_flat_comparing_and_one_answer_for_all_pairs(root: Path, tmp_path: Path) -> None:
    verdict = verdict_of(aligning(root, train=("connector.heads.match.bias",)), tmp_path / "run")
    assert {"flat-itc", "constant-itm"} <= names(verdict)
    assert "identical-queries" not in names(verdict)
    assert verdict.failing
    says = {one.name: one.says for one in verdict.findings}
    assert "log 4 = 1.386" in says["flat-itc"]
    assert "costs 0.637" in says["constant-itm"]


def test_queries_that_start_at_zero_stay_equal(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = QFormer.__init__

    def zeroed(self: QFormer, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.queries.data.zero_()

    monkeypatch.setattr(QFormer, "__init__", zeroed)
    stage = aligning(root, objectives=(ITM(), ITG()))  # ITC's maximum would tell them apart, one at a time
    verdict = verdict_of(stage, tmp_path / "run")
    assert verdict.findings[0].name == "identical-queries"
    assert "33% of them are distinct" in verdict.findings[0].says


def test_a_text_path_that_is_dropped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = QFormer._embed

    def dropped(self: QFormer, text: Text) -> torch.Tensor:
        same = embed(self, replace(text, ids=torch.zeros_like(text.ids)))
        return same[:, :1].repeat(1, same.shape[1], 1)

    monkeypatch.setattr(QFormer, "_embed", dropped)
    verdict = verdict_of(aligning(root), tmp_path / "run")
    assert "text-ignored" in names(verdict)
    assert verdict.findings[0].name == "text-ignored"  # the cause before what follows from it


def test_matching_that_gets_no_text_while_comparing_learns(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = QFormerReading.match

    def blind(self: QFormerReading, text: Text, owner: Sequence[int], others: torch.Tensor | None) -> torch.Tensor:
        same = Text(ids=torch.full_like(text.ids, 5), mask=torch.ones_like(text.mask))
        return match(self, same, owner, others)

    monkeypatch.setattr(QFormerReading, "match", blind)
    verdict = verdict_of(aligning(root, steps=80), tmp_path / "run")
    assert {"text-ignored", "constant-itm"} <= names(verdict)
    assert "flat-itc" not in names(verdict)


@pytest.mark.parametrize("cause", ["rate", "features"])
def test_overflow(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    stage = aligning(root, batch_size=4)
    if cause == "rate":
        stage = replace(stage, optimizer=AdamW(peak_lr=1e30, weight_decay=0.0), log_every=1)
    else:
        plain = VisionLanguageModel.features
        monkeypatch.setattr(
            VisionLanguageModel,
            "features",
            lambda self, batch: replace(plain(self, batch), tokens=plain(self, batch).tokens * 1e39),
        )
    with pytest.raises(NotFiniteError, match=r"not a finite number.*isthmus doctor"):
        train(stage, tmp_path / "run", progress=False)
    verdict = judge(facts_of(stage, STEPS), Run(tmp_path / "run").log())
    assert verdict.findings[0].name == "overflow"
    assert ("float16 ends at 65504" in verdict.findings[0].do) == (cause == "features")
    monkeypatch.setattr(doctoring, "saved_stage", lambda folder: stage)
    assert doctoring.diagnose(Doctor(run=tmp_path / "run")).verdict.failing


@pytest.mark.parametrize(("rate", "wanted"), [(1e-2, "healthy"), (0.0, "image-ignored"), (1e3, "exploding-norms")])
def test_stages_with_a_language_model(root: Path, tmp_path: Path, rate: float, wanted: str) -> None:
    verdict = verdict_of(answering(root, rate), tmp_path / "run")
    assert verdict.word == wanted or wanted in names(verdict)


LINE = {"step": 200, "itc": 1.2, "itm": 0.4, "itg": 2.0, "lr": 1e-4}


VERDICTS: list[tuple[Facts, dict[str, float], str]] = [
    (ALIGN, {}, "healthy"),
    (ALIGN, {"step": 90, "itc": 3.4}, "early"),
    (ALIGN, {"itc": 3.44}, "flat-itc"),
    (replace(ALIGN, losses=("itc_features",)), {"itc_features": 3.44}, "flat-itc"),
    (replace(ALIGN, pairs=1), {"step": 2, "itc": 0.0}, "nothing-compared"),
    (replace(ALIGN, pairs=1, losses=("itg",)), {"itg": 2.0}, "healthy"),
    (replace(ALIGN, losses=("itc_features",)), {"itc_features": 1.2}, "healthy"),
    (replace(ALIGN, losses=("itc", "itc_sum")), {"itc_sum": float("nan")}, "overflow"),
    (ALIGN, {"itm": 0.63}, "constant-itm"),
    (ALIGN, {"itm": 0.62, "itm_right_matches": 0.7, "itm_right_others": 0.6}, "healthy"),
    (ALIGN, {"itm": 0.64, "itm_right_matches": 0.0, "itm_right_others": 1.0}, "constant-itm"),
    (ALIGN, {"temperature": -0.01}, "temperature"),
    (ALIGN, {"itg_image_gain": 0.001}, "image-ignored"),
    (ALIGN, {"itc": float("nan")}, "overflow"),
    (ALIGN, {"itm_by_text": 1e-6, "itm_by_image": 0.3}, "text-ignored"),
    (replace(ALIGN, half_encoder=True), {"feature_max": 40_000.0}, "near-overflow"),
    (ANSWER, {"loss": 0.0}, "zero-loss"),
    (ANSWER, {"loss": 2.0, "image_gain": 0.001, "image_gain_error": 0.001}, "image-ignored"),
    (ANSWER, {"loss": 2.0, "image_gain": 0.3, "image_gain_error": 0.1}, "healthy"),
    (ANSWER, {"loss": 2.0, "visual_norm": 2e3, "word_norm": 1.0}, "exploding-norms"),
    (ANSWER, {"loss": 2.0, "visual_norm": 60.0, "word_norm": 1.0}, "healthy"),
    (ANSWER, {"loss": 2.0, "visual_cosine": 1.0, "visual_rank": 1.0}, "identical-queries"),
    (ALIGN, {"query_cosine": 0.9999, "query_rank": 1.0, "query_distinct": 0.1}, "identical-queries"),
    (ALIGN, {"text_cosine": 0.9999}, "text-ignored"),
    (ALIGN, {"itg": 6.95}, "not-falling"),
    (ANSWER, {"loss": 4.96}, "not-falling"),
    (ANSWER, {"loss": 4.9}, "healthy"),
    (ANSWER, {"loss": 0.0}, "healthy"),  # learnt by heart is not zero from the start
    (ANSWER, {"loss": 2.0, "visual_cosine": 0.6, "visual_rank": 5.0}, "healthy"),
    (ALIGN, {"query_cosine": 0.6, "query_rank": 9.0, "query_distinct": 1.0, "temperature": 0.07}, "healthy"),
    (ALIGN, {"text_cosine": 0.6, "itm_by_text": 0.3, "itm_by_image": 0.3, "itg_image_gain": 0.4}, "healthy"),
    (replace(ALIGN, half_encoder=True), {"feature_max": 4_000.0}, "healthy"),
]


@pytest.mark.parametrize(("facts", "changes", "wanted"), VERDICTS)
def test_verdicts_on_literal_lines(
    monkeypatch: pytest.MonkeyPatch, facts: Facts, changes: dict[str, float], wanted: str
) -> None:
    monkeypatch.setattr(doctor, "EARLIEST", 100)
    first = {"step": 10, "itc": 3.46, "itm": 0.69, "itg": 7.0, "loss": 0.0 if wanted == "zero-loss" else 5.0}
    assert judge(facts, [first, {**LINE, **changes}]).word == wanted


def test_a_contrast_of_other_vectors_is_known_by_the_name_of_its_loss() -> None:
    assert facts_of(internvl1.stage1(), 10).losses == ("itc_features",)
    aligned = facts_of(internvl1.stage2(), 10)
    assert aligned.losses == ("itc", "itm", "itg")
    assert aligned.aligns
    assert facts_of(internvl1.stage3(), 10).losses == ("loss",)


def test_tokens_alike_are_told_of_short_runs_too() -> None:
    line = {"step": 8, "loss": 2.0, "visual_rank": 1.2, "visual_cosine": 0.99}
    assert not tokens_alike([{"step": 1, "loss": 3.0}, line])
    assert tokens_alike([line, {**line, "visual_cosine": 0.9999}])
    assert tokens_alike([{**line, "visual_rank": 1.001}])
    assert not tokens_alike([{"step": 8, "loss": 2.0}])


def test_a_single_token_is_like_no_other() -> None:
    signs = token_signs(torch.randn(3, 1, 8), "visual")
    assert signs == {}
    assert not tokens_alike([{"step": 200, "loss": 2.0, **signs}])
    assert token_signs(torch.ones(3, 2, 8), "visual")["visual_cosine"] == pytest.approx(1.0)


def test_skipped_samples_are_told() -> None:
    assert judge(ANSWER, [{"step": 1, "loss": 1.0}], skipped=5, samples=100).word == "samples-skipped"
    assert judge(ANSWER, [{"step": 1, "loss": 1.0}], skipped=0, samples=100).word == "early"


def test_every_failure_in_the_docs_is_tried_and_every_one_that_is_named_is_there() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \|", docs.partition("## Failures it names")[2], flags=re.MULTILINE)
    named = set(re.findall(r'name="([a-z-]+)"', Path(doctor.__file__).read_text(encoding="utf-8")))
    assert sorted(listed) == sorted(named)
    assert named == {wanted for _, _, wanted in VERDICTS} - {"healthy", "early"} | {"samples-skipped"}
