"""ITC, ITM and ITG on a tiny Q-Former: what they refuse, their edge cases, and whole runs without a language model."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_stage import Swatches, tiny_stage
from tiny_stage import tiny_model as tiny_chat_model
from tiny_stage1 import batch_of, captioned, tiny_model, tiny_stage1

from isthmus.connectors import MlpConfig, QFormerConfig
from isthmus.data.captions import CaptionStyle
from isthmus.data.collate import Batch
from isthmus.data.sources.base import Source
from isthmus.llms import CausalLM
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run
from isthmus.train.loop import train
from isthmus.train.objectives import ITC, ITG, ITM, NextToken
from isthmus.train.objectives.shared import Shared
from isthmus.train.objectives.whole import parts_of, read_vectors
from isthmus.train.setup import Losses
from isthmus.train.stage import AdamW


@pytest.fixture(scope="module")
def model(root: Path) -> VisionLanguageModel:
    torch.manual_seed(0)
    return VisionLanguageModel(tiny_model(root), with_encoder=False)


FOUR = ((1, "a red one"), (2, "two"), (3, "a third"), (4, "no"))


def test_a_connector_without_text_is_refused_and_those_that_can_are_named(root: Path) -> None:
    stage = tiny_stage1(root)
    for objective in (ITC(), ITM(), ITG()):
        with pytest.raises(ValueError, match=r"MlpConfig reads none.*q-former \(QFormerConfig\).*qllama"):
            replace(stage, model=replace(stage.model, connector=MlpConfig()), objectives=(objective,))


def test_what_does_not_fit_is_refused_when_the_stage_is_built(root: Path) -> None:
    stage = tiny_stage1(root)
    silent = replace(stage.model, connector=QFormerConfig(num_queries=3, width=16, layers=2, heads=2, ffn_width=24))
    chat = replace(stage.model, llm=CausalLM())
    refused = [
        (lambda: replace(stage, model=silent), "needs the connector's heads.*text=True and embedding=256"),
        (lambda: replace(stage, model=chat), "has an `llm`. Set llm=None"),
        (lambda: replace(stage, objectives=(NextToken(),)), "NextToken needs a language model"),
        (lambda: replace(stage, objectives=(ITC(vectors="features"),)), "needs pooled features.*qllama"),
        (lambda: replace(stage, objectives=(ITM(negatives="given"),)), "'hard' or 'random'"),
        (lambda: replace(stage, objectives=(ITM(), ITC(), ITM(negatives="random"))), "several .* give the loss 'itm'"),
        (
            lambda: replace(stage, model=replace(stage.model, captions=CaptionStyle(max_tokens=65))),
            r"up to 65 tokens .* do not fit the 64 positions of QFormerConfig",
        ),
        (lambda: ITC(label_smoothing=1.0), r"ITC\(label_smoothing=1.0"),
        (lambda: ITG(label_smoothing=-0.1), r"ITG\(label_smoothing=-0.1"),
        (lambda: QFormerConfig(embedding=256), "needs text=True"),
        (
            lambda: VisionLanguageModel(replace(tiny_chat_model(root), llm=None), with_encoder=False),
            "no language model",
        ),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


@pytest.mark.usefixtures("unannotated")
def test_a_choice_that_there_is_not_is_refused() -> None:
    """Otherwise any word would be taken for one of the choices."""
    refused = [
        (lambda: ITM(negatives="hardest"), r"ITM\(negatives='hardest'\): it must be one of 'hard', 'random', 'given'"),
        (lambda: ITM(given="all"), r"ITM\(given='all'\)"),
        (lambda: ITC(gradients="attached"), r"ITC\(gradients='attached'\): it must be one of 'local', 'both'"),
        (lambda: ITC(vectors="query"), r"ITC\(vectors='query'\)"),
    ]
    for attempt, message in refused:
        with pytest.raises(ValueError, match=message):
            attempt()


def test_losses_of_a_fresh_model_are_near_chance(model: VisionLanguageModel) -> None:
    torch.manual_seed(1)
    shared = Shared(model, batch_of(model, captioned(*FOUR)))
    itc = float(ITC().losses(shared)["itc"].detach()) / 4
    itm = float(ITM().losses(shared)["itm"].detach()) / 12
    count = ITG().counts(shared.batch)["itg"]
    itg = float(ITG().losses(shared)["itg"].detach()) / count
    assert abs(itc - math.log(4)) < 0.4
    assert abs(itm - math.log(2)) < 0.2
    assert abs(itg - math.log(80)) < 0.5
    letters = sum(len(text.replace(" ", "")) for _, text in FOUR)
    assert count == letters + 4  # every letter and each end mark


def test_an_images_keys_and_values_are_computed_once(model: VisionLanguageModel, monkeypatch) -> None:
    calls: list[tuple[int, ...]] = []
    whole = model.connector._pairs
    monkeypatch.setattr(model.connector, "_pairs", lambda tokens: (calls.append(tuple(tokens.shape)), whole(tokens))[1])
    monkeypatch.setattr(model.connector.layers[0].cross, "pair", lambda seen: pytest.fail("looked again"))
    shared = Shared(model, batch_of(model, captioned(*FOUR)))
    for objective in (ITC(), ITM(), ITG()):
        objective.losses(shared)
    assert calls == [(4, 4, 16)]


def test_a_batch_of_one_learns_what_it_can(model: VisionLanguageModel) -> None:
    shared = Shared(model, batch_of(model, captioned((1, "alone"))))
    losses = {**ITC().losses(shared), **ITM().losses(shared), **ITG().losses(shared)}
    assert float(losses["itc"].detach()) == 0.0
    assert float(losses["itm"].detach()) == 0.0
    assert float(losses["itg"].detach()) > 0.0
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)
    model.zero_grad()


def test_several_captions_of_one_image_share_the_target_and_are_no_negatives(model: VisionLanguageModel) -> None:
    shared = Shared(model, batch_of(model, captioned((1, "a"), (1, "b"), (2, "c"), (3, "d"))))
    compared = shared.compare("queries", "local")
    told = ITC(same_image=True, label_smoothing=0.2).targets(shared, compared)
    wanted = torch.tensor([[0.45, 0.45, 0.05, 0.05]] * 2 + [[0.05, 0.05, 0.85, 0.05], [0.05, 0.05, 0.05, 0.85]])
    torch.testing.assert_close(told, wanted)
    alone = ITC(label_smoothing=0.2).targets(shared, compared)
    torch.testing.assert_close(alone, 0.8 * torch.eye(4) + 0.05)
    for kind in ("hard", "random"):
        for chances in ITM(negatives=kind, same_image=True).chances(shared):
            assert bool((chances[:2, :2] == 0).all())
            assert bool((chances[2:, :2] > 0).all())
        for chances in ITM(negatives=kind).chances(shared):
            assert bool((chances.diagonal() == 0).all())
            assert bool(chances[0, 1] > 0)


def test_without_negatives_to_mine_matching_is_left_out(model: VisionLanguageModel) -> None:
    torch.manual_seed(2)
    one_image = Shared(model, batch_of(model, captioned((1, "a"), (1, "b"), (1, "c"))))
    assert float(ITM(same_image=True).losses(one_image)["itm"].detach()) == 0.0
    mixed = Shared(model, batch_of(model, captioned((1, "a"), (1, "b"), (2, "c"))))
    negatives = ITM(same_image=True).mine(mixed)
    assert negatives.kept.tolist() == [True, True, True]
    assert negatives.images.tolist()[:2] == [2, 2]
    assert negatives.texts.tolist()[2] in (0, 1)


def test_random_negatives_are_even_and_hard_ones_follow_the_similarities(model: VisionLanguageModel) -> None:
    shared = Shared(model, batch_of(model, captioned(*FOUR)))
    even = ITM(negatives="random").chances(shared)[0]
    torch.testing.assert_close(even, (1 - torch.eye(4)) / 3)
    hard = ITM().chances(shared)[0]
    logits = shared.any_comparison().text_to_image.detach().masked_fill(torch.eye(4).bool(), -math.inf)
    torch.testing.assert_close(hard, logits.softmax(dim=1))


def test_long_and_empty_captions(model: VisionLanguageModel) -> None:
    batch = batch_of(model, captioned((1, "abcdefghijklmnopqrstuvwxyz"), (2, "ab")))
    tokenizer = model.tokenizer
    assert batch.num_cut == 1
    assert batch.captions.match.ids.shape == (2, 12)
    assert batch.captions.match.ids[0, -1] == tokenizer.sep_token_id
    assert tokenizer.decode(batch.captions.write.ids[1][:4]) == "[DEC] a ##b [SEP]"
    assert batch.captions.targets[1, 4:].tolist() == [-100] * 8
    with pytest.raises(ValueError, match="The caption of sample '1' is empty"):
        batch_of(model, captioned((1, "a"), (2, "  ")))


def test_a_special_token_in_a_caption_is_plain_text(model: VisionLanguageModel) -> None:
    batch = batch_of(model, captioned((1, "[SEP] a")))
    assert batch.captions.match.ids[0, 1:-1].tolist().count(model.tokenizer.sep_token_id) == 0


@pytest.mark.parametrize("objectives", [(ITC(),), (ITM(negatives="random"),), (ITG(),), (ITM(), ITG())])
def test_any_subset_trains(root: Path, tmp_path: Path, objectives: tuple) -> None:
    run = train(tiny_stage1(root, objectives=objectives, steps=2), tmp_path / "run", progress=False)
    named = {ITC: "itc", ITM: "itm", ITG: "itg"}
    assert {"itc", "itm", "itg"} & set(run.log()[1]) == {named[type(one)] for one in objectives}
    assert run.finished


def test_a_stage_without_a_language_model_trains_resumes_and_loads(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage1(root)
    whole = train(stage, tmp_path / "whole", progress=False)
    again = train(stage, tmp_path / "again", progress=False)
    assert (tmp_path / "whole" / "log.jsonl").read_bytes() == (tmp_path / "again" / "log.jsonl").read_bytes()
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, again.weights()[name]), name
    assert all(name.startswith("connector.") for name in whole.weights())
    loaded = Run(tmp_path / "whole").load_model(with_encoder=False)
    assert torch.equal(loaded.connector.queries, whole.weights()["connector.queries"])
    with pytest.raises(ValueError, match=r"no language model \(llm=None\)"):
        loaded.answer([])
    assert json.loads((tmp_path / "whole" / "stage.json").read_text())["llm"] is None


def test_a_batch_of_one_and_empty_captions_train(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage1(root, batch_size=1, steps=2, validation=(), data=(Source(of=Swatches(num=2)),))
    assert train(stage, tmp_path / "one", progress=False).finished
    model = tiny_model(root)
    cleaned = replace(model, captions=replace(model.captions, clean=True))
    for name, blank, used in (("blank", " ", model), ("marks", "(...)!", cleaned)):  # of marks cleaning leaves nothing
        empty = tiny_stage1(root, model=used, steps=2, data=(Source(of=Swatches(num=8, empty=(3,), blank=blank)),))
        run = train(empty, tmp_path / name, progress=False)
        assert run.result["skipped"] == ["data 0:Remembered/3"]


@pytest.mark.parametrize(
    "objectives",
    [(ITC(), ITM(), ITG()), (ITM(), ITC(gradients="both")), (ITM(), ITG())],
    ids=["all", "matching-first", "no-contrast"],
)
def test_micro_batches_give_the_gradient_of_the_whole_batch(root: Path, objectives: tuple) -> None:
    torch.manual_seed(0)
    model = VisionLanguageModel(tiny_model(root), with_encoder=False).double()
    samples = captioned(*FOUR, (5, "five of them"), (6, "e"), (7, "x y"))
    whole = in_double(batch_of(model, samples))
    cut = [in_double(batch_of(model, samples[first : first + 3])) for first in (0, 3, 6)]
    losses, slopes = [], []
    for batches in ([whole], cut):
        module = Losses(model, replace(tiny_stage1(root), objectives=objectives))
        parts = [None] if batches == [whole] else parts_of(model, objectives, batches, torch.manual_seed)
        model.zero_grad()
        total = {}
        for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            torch.manual_seed(number)
            for name, loss in module(batch, part).items():
                loss.backward(retain_graph=True)
                total[name] = total.get(name, 0.0) + loss.detach()
        losses.append(total)
        slopes.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert losses[0].keys() == losses[1].keys()
    torch.testing.assert_close(losses[1], losses[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(slopes[1], slopes[0], atol=1e-9, rtol=1e-9)


def test_a_micro_batch_read_again_draws_the_same_dropout(root: Path) -> None:
    model = VisionLanguageModel(tiny_model(root, dropout=0.4), with_encoder=False).train()
    batch = batch_of(model, captioned(*FOUR))
    objectives = (ITC(), ITM(), ITG())
    told = []
    for announced, again in (((), True), (objectives, True), (objectives, False)):
        shared = Shared(model, batch)
        for one in announced:
            one.prepare(shared)
        torch.manual_seed(5)
        if again:
            read_vectors(shared, objectives)
        told.append((shared.reading.images("queries"), shared.reading.texts()))
    assert all(torch.equal(one, other) for one, other in zip(told[0], told[1], strict=True))
    assert not torch.equal(told[2][1], told[0][1])  # read together with what is written


def in_double(batch: Batch) -> Batch:
    return replace(batch, features=replace(batch.features, tokens=batch.features.tokens.double()))


def test_a_stage_with_micro_batches_trains_as_one_without(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage1(root, batch_size=6, validation=(), log_every=1, steps=2)
    whole = train(stage, tmp_path / "whole", progress=False)
    cut = train(replace(stage, micro_batch_size=2), tmp_path / "cut", progress=False)
    for ours, theirs in zip(cut.log(), whole.log(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_whole_batch_of_pixels_in_micro_batches_is_refused(root: Path, tmp_path: Path) -> None:
    stage = tiny_stage1(root, train=("connector", "encoder"), micro_batch_size=2, steps=1, validation=())
    with pytest.raises(ValueError, match=r"the encoder learns.*Leave out micro_batch_size"):
        train(stage, tmp_path / "run", progress=False)
    assert train(replace(stage, micro_batch_size=None), tmp_path / "pixels", progress=False).finished


def test_a_second_stage_goes_on_with_the_connector_of_the_first(root: Path, tmp_path: Path) -> None:
    first = train(tiny_stage1(root), tmp_path / "first", progress=False)
    connector = replace(tiny_model(root).connector, text=False, embedding=0)
    model = replace(tiny_chat_model(root), connector=connector)
    second = tiny_stage(root, model=model, start_from="tiny1", steps=1, optimizer=AdamW(peak_lr=0.0))
    run = train(second, tmp_path / "second", start=tmp_path / "first", progress=False)
    ours, theirs = run.weights(), first.weights()
    assert {name for name in ours if name not in theirs} == {"connector.project.weight", "connector.project.bias"}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if name in theirs)
    assert not [name for name in ours if "words" in name or "heads" in name or "text_ffn" in name]
    other = replace(second, model=replace(model, connector=replace(connector, num_queries=4)))
    with pytest.raises(ValueError, match="another connector"):
        train(other, tmp_path / "third", start=tmp_path / "first", progress=False)
