"""Batches that mix text, images, clips and sounds train, and give what their samples give one at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from medley import KINDS, Medley, medley, medley_stage

from isthmus.config import from_json, to_json
from isthmus.connectors.arrange import Anyres, ArrangementConfig, ByInput, DeepStack, FramePool, Separated
from isthmus.data.collate import Batch
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Source
from isthmus.encoders import CachedEncoder, FeatureCache
from isthmus.encoders.tiles import AnyresTiles, OneView
from isthmus.evaluate.runner import evaluate
from isthmus.features import Plan
from isthmus.measure.cost import cost
from isthmus.model import TYPES, VisionLanguageModel
from isthmus.runs import Run
from isthmus.train import freeze
from isthmus.train.loop import train
from isthmus.train.setup import build_model
from isthmus.train.stage import Stage

WITHOUT_EFFECT = "cross.key.bias"
"""It adds the same to every score of a query, which softmax takes away: its gradient is 0."""
EVERY = [medley(number, number % KINDS) for number in range(KINDS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("medley")


@pytest.fixture(autouse=True)
def own_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(root / "cache"))


def whole_model(stage: Stage) -> VisionLanguageModel:
    torch.manual_seed(5)
    model = VisionLanguageModel(stage.model)
    freeze.apply(model, stage.train)
    return model


def collated(model: VisionLanguageModel, samples: list[Sample], **options: bool) -> Batch:
    seen = model.look(samples)
    return model.config.batch(
        samples,
        tokenizer=model.tokenizer,
        plans=seen.plans,
        pixels=seen.image.pixels,
        others=seen.others,
        **options,
    )


def gradients(model: VisionLanguageModel) -> dict[str, torch.Tensor]:
    found = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    model.zero_grad(set_to_none=True)
    assert not [name for name, grad in found.items() if grad is None]
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


@pytest.mark.parametrize("placement", ["in-place", "before-bos"])
def test_a_mixed_batch_is_its_samples_one_at_a_time(root: Path, placement: str) -> None:
    stage = medley_stage(root)
    model = whole_model(replace(stage, model=replace(stage.model, placement=placement)))  # type: ignore[arg-type]
    batch = collated(model, EVERY)
    assert [plan.branch for plan in batch.plans] == [
        "image", "image", "image", "video", "audio", "audio", "image", "video", "image",
    ]  # fmt: skip
    assert batch.owner == (1, 2, 2, 3, 4, 5, 5, 5, 5)
    counts = {"image": 4, "video": 3, "audio": 2}
    assert [model.config.num_visual_tokens(plan) for plan in batch.plans] == [
        counts[plan.branch] for plan in batch.plans
    ]
    together = model(batch)
    together.token_losses.sum().backward()
    grads = gradients(model)
    assert {name.partition(".")[0] for name in grads} == {"connector", "video", "audio"}
    assert all(float(grad.abs().sum()) > 0 for name, grad in grads.items() if not name.endswith(WITHOUT_EFFECT))
    alone = []
    for sample in EVERY:
        losses = model(collated(model, [sample])).token_losses
        losses.sum().backward()
        alone.append(losses.detach())
    torch.testing.assert_close(together.token_losses.detach(), torch.cat(alone), rtol=1e-4, atol=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-4, msg=name)


def test_text_alone_touches_every_weight_of_every_branch(root: Path) -> None:
    model = whole_model(medley_stage(root))
    model(collated(model, [EVERY[0]])).loss.backward()
    assert all(float(grad.abs().sum()) == 0 for grad in gradients(model).values())


def test_a_mixed_batch_is_answered_as_its_samples_are(root: Path) -> None:
    model = whole_model(medley_stage(root)).eval()
    samples = [replace(sample, turns=sample.turns[:-1]) for sample in EVERY]
    together = model.answer(samples)
    assert together == [model.answer([sample])[0] for sample in samples]


def test_a_medley_trains_from_kept_features_and_is_evaluated(root: Path, tmp_path: Path) -> None:
    stage = medley_stage(root, micro_batch_size=3)
    assert from_json(json.loads(json.dumps(to_json(stage.model))), TYPES) == stage.model
    run = train(stage, tmp_path / "run", progress=False)
    losses = [line["loss"] for line in run.log() if "loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    kept = set(run.weights())
    assert {".".join(name.split(".")[:2]) for name in kept if not name.startswith("connector")} == {
        "video.connector",
        "audio.connector",
    }
    fresh = build_model(stage).state_dict()
    moved = {name for name, tensor in run.weights().items() if not torch.equal(fresh[name], tensor)}
    assert all(name in moved or name.endswith(WITHOUT_EFFECT) for name in kept)

    model = Run(tmp_path / "run").load_model()
    items = [replace(sample, meta={"answers": (f"yes {number}",)}) for number, sample in enumerate(EVERY)]
    encoder = CachedEncoder(stage.model.encoder, FeatureCache(tmp_path / "kept"))
    for control in ("none", "shuffled", "text-only"):
        answers = evaluate(model, items, encoder=encoder, control=control)  # type: ignore[arg-type]
        assert [answer.item for answer in answers] == [item.id for item in items]
    asked = evaluate(model, items, encoder=encoder, batch_size=1)
    assert [one.prediction for one in asked] == [one.prediction for one in evaluate(model, items, encoder=encoder)]


def test_an_ear_that_learns_is_fed_pixels(root: Path, tmp_path: Path) -> None:
    stage = medley_stage(root)
    stage = replace(stage, train=("audio", "video.connector"), steps=1, save_every=1, validation=())
    run = train(replace(stage, data=(Source(of=Medley(num=6)),)), tmp_path / "run", progress=False)
    assert any(name.startswith("audio.encoder.tower.") for name in run.weights())
    assert run.load_model(with_encoder=False).audio.encoder is None  # type: ignore[union-attr]


def test_branches_are_added_to_a_run_without_them(root: Path, tmp_path: Path) -> None:
    stage = medley_stage(root)
    pictures = replace(
        stage,
        model=replace(stage.model, video=None, audio=None),
        train=("connector",),
        data=(Source(of=Medley(kinds=(0, 1, 2))),),
        validation=(),
        steps=1,
        save_every=1,
    )
    first = train(pictures, tmp_path / "first", progress=False)
    joined = replace(stage, start_from=str(tmp_path / "first"), train=("audio.connector",), validation=(), steps=1)
    second = train(joined, tmp_path / "second", progress=False)
    for name, tensor in first.weights().items():
        assert torch.equal(second.weights()[name], tensor)


def test_clips_go_through_the_image_branch_frame_by_frame(root: Path) -> None:
    stage = medley_stage(root)
    stage = replace(stage, model=replace(stage.model, video=None, audio=None), train=("connector",))
    model = whole_model(stage)
    clip = medley(5, 3)
    batch = collated(model, [clip])
    assert [(plan.branch, plan.views) for plan in batch.plans] == [("image", range(3))]
    assert int(batch.visual.sum()) == 12 == model.config.num_visual_tokens(batch.plans[0])
    assert model(batch).loss > 0
    with pytest.raises(ValueError, match=r"'medley/4' holds a sound, but the model has no audio branch"):
        collated(model, [EVERY[4]])
    with pytest.raises(ValueError, match="use look"):
        whole_model(medley_stage(root)).prepare([clip])


@pytest.mark.parametrize(
    "arrange", [Anyres(), Separated(), DeepStack(groups=2, start_layer=0)], ids=lambda a: type(a).__name__
)
def test_every_arrangement_takes_clips_beside_images(root: Path, arrange: ArrangementConfig) -> None:
    stage = medley_stage(root)
    tiles = AnyresTiles(grids=((1, 2),), pad=False) if isinstance(arrange, DeepStack) else OneView()
    encoder = replace(stage.model.encoder, tiles=tiles)  # type: ignore[call-arg]
    model = replace(stage.model, encoder=encoder, video=None, audio=None, arrange=arrange)
    stage = replace(stage, model=model, train=("connector",))
    model = whole_model(stage)
    samples = [medley(5, 3), EVERY[2], EVERY[0]]
    batch = collated(model, samples)
    own = 0 if isinstance(arrange, DeepStack) else 1
    assert [model.config.num_visual_tokens(plan) for plan in batch.plans] == [3 * (4 + own), 4 + own, 4 + own]
    alone = torch.cat([model(collated(model, [sample])).token_losses for sample in samples])
    torch.testing.assert_close(model(batch).token_losses, alone, rtol=1e-4, atol=1e-5)


def test_a_batch_whose_clips_came_as_plans_alone_is_refused(root: Path) -> None:
    model = whole_model(medley_stage(root))
    batch = collated(model, EVERY)
    assert set(batch.others) == {"video", "audio"}
    with pytest.raises(ValueError, match="has videos or sounds but neither their features nor their pixels"):
        model(replace(batch, others={}))


def test_branches_are_counted(root: Path) -> None:
    stage = medley_stage(root)
    model = whole_model(stage)
    known = cost(stage.model, train=stage.train)
    video, audio = known.branches
    assert (video.name, video.tokens, audio.name, audio.tokens) == ("video", 3, "audio", 2)
    for branch in known.branches:
        parts = model.branches[branch.name]  # type: ignore[index]
        assert branch.parameters == sum(one.numel() for one in parts.parameters())
        assert branch.learned == sum(one.numel() for one in parts.connector.parameters())
    assert known.learned == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert cost(stage.model, train=("audio",)).learned == audio.parameters
    with pytest.raises(ValueError, match=r"'audio\.conector'.*Did you mean"):
        cost(stage.model, train=("audio.conector",))


def test_crops_are_added_to_images_alone_in_a_mixed_batch(root: Path) -> None:
    """DeepStack in the image branch beside clips and sounds: each sample's losses and gradients are its own."""
    stage = medley_stage(root)
    encoder = replace(stage.model.encoder, tiles=AnyresTiles(grids=((1, 2),), pad=False))  # type: ignore[call-arg]
    stack = DeepStack(groups=2, start_layer=0)
    model = whole_model(replace(stage, model=replace(stage.model, encoder=encoder, arrange=stack)))
    together = model(collated(model, EVERY))
    together.token_losses.sum().backward()
    grads = gradients(model)
    alone = [model(collated(model, [sample])).token_losses for sample in EVERY]
    torch.cat(alone).sum().backward()
    torch.testing.assert_close(together.token_losses, torch.cat(alone), rtol=1e-4, atol=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-4, msg=name)
    model.llm.add_to_layers(None, 1)
    model.llm.add_to_layers = lambda addition, rows: None  # type: ignore[method-assign]
    without = [model(collated(model, [sample])).token_losses for sample in EVERY]
    same = [torch.equal(one, other) for one, other in zip(alone, without, strict=True)]
    assert same == [True, False, False, True, True, False]


def test_clips_are_pooled_and_images_are_not(root: Path) -> None:
    stage = medley_stage(root)
    pooled = ByInput(image=Separated(), clip=FramePool(newline=True))
    stage = replace(stage, model=replace(stage.model, video=None, arrange=pooled), train=("connector", "arrange"))
    model = whole_model(stage)
    samples = [medley(5, 3), EVERY[2], EVERY[0]]
    batch = collated(model, samples)
    assert [model.config.num_visual_tokens(plan) for plan in batch.plans] == [3 * 1 + 1, 5, 5]
    together = model(batch)
    alone = torch.cat([model(collated(model, [sample])).token_losses for sample in samples])
    torch.testing.assert_close(together.token_losses, alone, rtol=1e-4, atol=1e-5)
    model(collated(model, [EVERY[1]])).loss.backward()
    assert float(gradients(model)["arrange.clip.newline"].abs().sum()) == 0
    with pytest.raises(ValueError, match="DeepStack adds to later ones"):
        replace(stage.model, arrange=ByInput(image=DeepStack())).check()


def test_plans_follow_without_weights(root: Path) -> None:
    from isthmus.branches import plan_inputs

    stage = medley_stage(root)
    model = whole_model(stage)
    encoders = {"image": stage.model.encoder, **{name: one.encoder for name, one in stage.model.branches.items()}}
    planned: tuple[Plan, ...] = plan_inputs(EVERY, encoders, tile_several=True)  # type: ignore[arg-type]
    assert planned == model.look(EVERY).plans
