"""InternVL 1.0's stages on a tiny QLLaMA: its three texts, whole runs, its start from a LLaMA, and a gallery."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VOCABULARY, save_model
from tiny_stage import Swatches
from tiny_stage1 import batch_of, captioned, tiny_stage1
from transformers import LlamaConfig, LlamaForCausalLM

from isthmus.cli import retrieving
from isthmus.cli.commands import Evaluate
from isthmus.cli.doctoring import expected
from isthmus.cli.retrieving import held_out, retrieve_run
from isthmus.compare import aligning
from isthmus.compare.aligning import Aligning
from isthmus.compare.jobs import AskedToAlign
from isthmus.compare.study import Arm, Study
from isthmus.connectors import QLlamaConfig
from isthmus.connectors.reading import Vectors
from isthmus.curate import AlignedRun
from isthmus.data.captions import CaptionStyle, caption_of
from isthmus.data.sources.base import Source
from isthmus.evaluate import pairs
from isthmus.evaluate.gallery import Retrieved, make_gallery, retrieve_both_ways
from isthmus.evaluate.pairs import prefer
from isthmus.evaluate.sight import open_run
from isthmus.features import FeatureShape, Grid
from isthmus.measure.checkup import check_up
from isthmus.measure.doctor import judge
from isthmus.measure.signs import mean_cosine
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.objectives import ITC, ITG, ITM
from isthmus.train.stage import Stage
from isthmus.train.watch import facts_of

SMALL = QLlamaConfig(
    num_queries=3,
    width=16,
    layers=2,
    heads=2,
    ffn_width=24,
    text=True,
    vocabulary=VOCABULARY,
    embedding=8,
    pool_heads=2,
)
KINDS: tuple[Vectors, ...] = ("features", "queries")
CONTRAST, MATCH, WRITE = (
    ITC(label_smoothing=0.0, gradients="both"),
    ITM(negatives="given"),
    ITG(label_smoothing=0.0),
)


def stage(root: Path) -> Stage:
    tiny = tiny_stage1(root, steps=2)
    connector = replace(SMALL, text_model=save_model("llama", root))
    captions = CaptionStyle(max_tokens=20, contrast_prefix="s:", write_prefix="cap:")
    model = replace(tiny.model, connector=connector, captions=captions)
    return replace(tiny, model=model, objectives=(CONTRAST, MATCH, WRITE))


def test_each_caption_is_written_three_ways(root: Path) -> None:
    model = VisionLanguageModel(stage(root).model, with_encoder=False)
    captions = batch_of(model, captioned((1, "ab"), (1, "c"), (2, "d"))).captions
    decode = model.tokenizer.decode
    assert decode(captions.match.ids[0]) == "<s>ab</s>"
    assert decode(captions.contrast.ids[1][captions.contrast.mask[1]]) == "<s>s:c</s>"
    assert decode(captions.write.ids[2][captions.write.mask[2]]) == "<s>cap:d</s>"
    learnt = captions.targets[0] != -100
    assert decode(captions.targets[0][learnt]) == ":ab</s>"  # the prefix's last token is learnt too
    assert [decode(row[mask]) for row, mask in zip(captions.negatives.ids, captions.negatives.mask, strict=True)] == [
        "<s>d</s>",
        "<s>d</s>",
        "<s>ab</s>",
    ]
    assert not bool(captions.negatives_empty.any())
    alone = batch_of(model, captioned((1, "ab"), (1, "c"))).captions
    assert bool(alone.negatives_empty.all())


def test_the_middleware_trains(root: Path, tmp_path: Path) -> None:
    run = train(stage(root), tmp_path / "run", progress=False)
    assert {"itc", "itm", "itg"} <= set(run.log()[1])
    assert run.finished


def first_stage(root: Path) -> Stage:
    """Pooled features are compared; the queries learn nothing."""
    return replace(
        stage(root),
        objectives=(replace(CONTRAST, vectors="features"),),
        train=("encoder", "connector.words", "connector.layers", "connector.norm", "connector.heads"),
        data=(Source(of=Swatches(num=8)),),
    )


@pytest.fixture(scope="module")
def compared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        return train(first_stage(root), folder / "run", progress=False)


def test_contrast_with_a_learning_encoder_trains_what_it_touches(compared: Run) -> None:
    assert "itc_features" in compared.log()[1]
    assert any(name.startswith("encoder.") for name in compared.weights())


def test_a_run_is_searched_by_what_it_compared(root: Path, compared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh queries say nothing: a gallery, a study and a curation look at the pooled features, as training did."""
    assert compared.vectors == "features"
    model, encoder = open_run(compared)
    samples = held_out(first_stage(root), 4)
    searched = {
        kind: retrieve_both_ways(model, make_gallery(samples), encoder=encoder, k=0, vectors=kind).compared
        for kind in KINDS
    }
    assert not torch.allclose(searched["features"], searched["queries"], atol=1e-3)
    monkeypatch.setattr(retrieving, "saved_stage", lambda folder: first_stage(root))  # its source is no listed one
    [found] = retrieve_run(Evaluate(run=compared.folder, num=4)).galleries.values()
    torch.testing.assert_close(found.compared, searched["features"])
    images, texts = [one.images[0] for one in samples], [caption_of(one) for one in samples]
    ranked = AlignedRun(compared).scores(images, texts, list(range(len(images))))
    places = make_gallery(samples)
    at = [[one.key for one in places.images].index(image.key) for image in images]
    told = [[caption_of(one) for one in places.texts].index(text) for text in texts]
    assert ranked == pytest.approx(searched["features"][at, told].tolist(), abs=1e-5)
    wrong = [replace(one, meta={"wrong": f"no {caption_of(one)}"}) for one in samples]
    asked: list[str] = []

    def noting(*given: Any, **named: Any) -> Retrieved:
        asked.append(named["vectors"])
        return retrieve_both_ways(*given, **named)

    for room in (aligning, pairs):
        monkeypatch.setattr(room, "retrieve_both_ways", noting)
    prefer(model, wrong, encoder=encoder, judge=False, vectors="features")
    nothing = AskedToAlign(tasks=(), headline=(), control_items=0, watch_items=0, blind=False, judge=0)
    study = Aligning(compared, nothing, None, root)
    for task in ("gallery/world", "swaps/replaced"):
        study._asked(task, [replace(one, meta={**one.meta, "family": task}) for one in wrong], 0)
    assert asked == ["features"] * 3


def test_an_imported_run_is_searched_by_named_tasks_alone(root: Path, compared: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(compared.folder, tmp_path / "imported"))
    told = json.loads((folder / "stage.json").read_text())
    kept = {name: told["stage"][name] for name in ("type", "name", "model")}
    (folder / "stage.json").write_text(json.dumps({**told, "imported_from": "a checkpoint", "stage": kept}))
    found = retrieve_run(Evaluate(run=folder, tasks=("gallery/world",), num=4, judge=2))
    [searched] = found.galleries.values()
    assert searched.compared.isfinite().all()
    assert searched.num_judged > 0  # by the judge that came with it
    with pytest.raises(ValueError, match="no validation to search"):
        retrieve_run(Evaluate(run=folder, num=4))


def test_a_study_takes_arms_that_compare_pooled_features(root: Path) -> None:
    tasks = ("gallery/world",)
    study = Study(name="s", base=first_stage(root), arms=(Arm(name="a"),), seeds=(1,), tune_rates=(1e-3,), tasks=tasks,
                  headline=tasks)  # fmt: skip
    assert study.judge == 0


def test_the_doctor_judges_the_comparison_that_was_trained(root: Path, compared: Run) -> None:
    facts = facts_of(first_stage(root), 200)
    assert facts.losses == ("itc_features",)
    flat = [{"step": step, "itc_features": math.log(facts.pairs)} for step in range(20, 201, 20)]
    assert judge(facts, flat).word == "flat-itc"
    falling = [{**line, "itc_features": 0.1} for line in flat]
    assert judge(facts, falling).word == "healthy"
    assert "itc_features" in expected(facts)
    model = compared.load_model(with_encoder=False)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    batch = batch_of(model, captioned((1, "ab"), (2, "cd"), (3, "e")))
    reading = model.connector.reading(batch.features, batch.captions)
    with torch.no_grad():
        alike = {kind: float(mean_cosine(reading.images(kind)[:, 0])) for kind in KINDS}
    assert check_up(model, batch, facts.losses)["image_cosine"] == pytest.approx(alike["features"], abs=1e-5)
    assert alike["features"] != pytest.approx(alike["queries"], abs=1e-3)


def test_of_several_comparisons_a_run_is_searched_by_their_sum(tmp_path: Path) -> None:
    for trained, kind in (
        (("queries",), "queries"),
        (("queries", "features"), "sum"),
        (("sum",), "sum"),
        ((), "queries"),
    ):
        objectives = [{"type": "ITM"}, *({"type": "ITC", "vectors": one} for one in trained)]
        folder = tmp_path / "-".join(["run", *trained])
        folder.mkdir()
        told = {"stage": {"name": "a", "model": {}, "objectives": objectives}}
        (folder / "stage.json").write_text(json.dumps(told))
        assert Run(folder).vectors == kind


def test_starts_from_a_llama_and_says_what_does_not_fit(root: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=24, vocab_size=VOCABULARY, rms_norm_eps=1e-6))
    made.save_pretrained(tmp_path / "llama")
    source = FeatureShape(width=6, grid=Grid(1, 2, 2))
    started = replace(SMALL, start_from=str(tmp_path / "llama")).build_alone(source).state_dict()
    theirs = made.state_dict()
    assert torch.equal(started["layers.1.gate.weight"], theirs["model.layers.1.mlp.gate_proj.weight"])
    assert torch.equal(started["layers.0.attention.out.weight"], theirs["model.layers.0.self_attn.o_proj.weight"])
    assert torch.equal(started["heads.write.weight"], theirs["lm_head.weight"])
    assert 0.01 < float(started["layers.0.cross.key.weight"].std()) < 0.03
    with pytest.raises(ValueError, match=r"intermediate_size=32 against 24"):
        replace(SMALL, ffn_width=32, start_from=str(tmp_path / "llama")).build_alone(source)
    with pytest.raises(ValueError, match="num_key_value_heads"):
        replace(SMALL, width=32, layers=3, heads=4, ffn_width=48, start_from=save_model("llama", root)).build_alone(
            source
        )


def test_a_text_of_an_image_scores_alike_alone_and_in_one_pass(root: Path) -> None:
    """Mined negatives take a pass of their own, given ones the joint pass: the same pair has the same logits."""
    torch.manual_seed(0)
    model = VisionLanguageModel(stage(root).model, with_encoder=False).eval()
    batch = batch_of(model, captioned((1, "ab"), (2, "cd"), (3, "e")))
    features, captions = batch.features, batch.captions
    apart = model.connector.reading(features, captions)
    joint = model.connector.reading(features, captions)
    for part in ("contrast", "match", "write"):
        joint.expect(part)
    with torch.no_grad():
        one = apart.match(captions.match, [0, 1, 2], None)
        other = joint.match(captions.match, [0, 1, 2], None)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(apart.images("queries"), joint.images("queries"), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(apart.texts(), joint.texts(), atol=1e-5, rtol=1e-4)
        turned = joint.match(captions.match, [1, 0, 2], None)
    assert not torch.allclose(turned[:2], one[:2], atol=1e-4)
