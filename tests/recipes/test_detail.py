"""The studies of detail compare what they say: equal visual tokens, equal FLOPs, one thing changed at a time."""

import json
from functools import cache
from pathlib import Path

import pytest

from isthmus.compare.costs import arm_cost, picture_size, training_work
from isthmus.compare.study import Study
from isthmus.data.sample import IMAGE_MARK
from isthmus.data.sources import SmallThings
from isthmus.measure import cost
from isthmus.recipes import STUDIES, detail_deepstack
from isthmus.train.stage import Stage
from isthmus.weights import BUNDLED

NAMES = [name for name, recipe in STUDIES.items() if recipe.module.startswith("detail")]
TOKENS = {
    "resolution": {80},
    "resolution/digits": {80},
    "tiles/whole": {80, 64},
    "deepstack/controls": {36, 180},
    "deepstack/sampling": {36},
    "deepstack/layers": {36},
    "deepstack/interval": {36},
    "deepstack/groups": {36},
    "deepstack/encoder": {36},
}


@cache
def study_of(name: str) -> Study:
    return STUDIES[name]()


def stages(name: str) -> dict[str, Stage]:
    return study_of(name).stages()


def tokens(stage: Stage) -> int:
    """As the model's own config counts them for the study's pictures."""
    size = picture_size(stage) or (192, 192)
    return stage.model.num_visual_tokens(stage.model.encoder.plan(size))


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_fits_and_has_the_promised_tokens(name: str) -> None:
    counts = {}
    for arm, stage in stages(name).items():
        stage.model.check()
        counts[arm] = tokens(stage)
        assert arm_cost(stage).visual_tokens == counts[arm]
    assert set(counts.values()) == TOKENS[name]
    others = {arm for arm, count in counts.items() if count != max(TOKENS[name], key=list(counts.values()).count)}
    assert others == {
        "tiles/whole": {"tiles"}, "deepstack/controls": {"longer sequence", "longer, as many steps"},
    }.get(name, set())  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_new_in_an_arm_learns(name: str) -> None:
    for arm, stage in stages(name).items():
        new = stage.model.arrange.parameters(stage.model.target())
        assert stage.learns("arrange") is bool(new), arm
        assert stage.learns("connector")


@pytest.mark.parametrize("name", NAMES)
def test_five_seeds_and_pictures_twice_as_fine_as_a_view(name: str) -> None:
    study = study_of(name)
    assert len(study.seeds) == 5
    assert study.name == name
    for stage in study.stages().values():
        for one in (*stage.data, *stage.validation):
            assert isinstance(one.of, SmallThings)
            assert one.of.size == 2 * stage.model.encoder.image_size  # type: ignore[attr-defined]


def test_resolution_costs_the_language_model_the_same() -> None:
    costs = [arm_cost(stage) for stage in stages("resolution").values()]
    assert len({one.prefill_flops for one in costs}) == len({one.kv_bytes for one in costs}) == 1
    assert len({one.connector_parameters for one in costs}) == 1
    works = [training_work(stage) for stage in stages("resolution").values()]
    assert max(works) / min(works) < 1.06


def test_the_longer_sequence_takes_deepstacks_training_flops() -> None:
    found = stages("deepstack/controls")
    longer, stack = found["longer sequence"], found["DeepStack"]
    assert longer.steps is not None
    assert stack.steps is not None
    assert longer.steps < stack.steps
    assert training_work(longer) == pytest.approx(training_work(stack), rel=0.5 / longer.steps)
    others = [training_work(found[arm]) for arm in ("whole", "dummy", "channels")]
    assert others == pytest.approx([training_work(stack)] * 3, rel=0.05)


def test_deepstack_arms_differ_in_one_thing() -> None:
    for name, field in (("sampling", "sampling"), ("layers", "start_layer"), ("interval", "interval")):
        found = stages(f"deepstack/{name}").values()
        arranged = [stage.model.arrange for stage in found]
        assert len({getattr(one, field) for one in arranged}) == len(arranged)
        assert len({stage.model.encoder for stage in found}) == 1
        assert len({stage.model.connector for stage in found}) == 1
    layers = [stage.model.arrange.added_before() for stage in stages("deepstack/layers").values()]
    assert layers == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [one.model.arrange.added_before()[1] for one in stages("deepstack/interval").values()] == [1, 2, 3, 5]
    stacks = stages("deepstack/groups").values()
    assert [len(one.model.arrange.added_before()) for one in stacks] == [1, 2, 4, 6]
    assert [one.model.encoder.plan((192, 192)).tiles.size for one in stacks] == [1, 2, 4, 6]


def test_eight_groups_take_a_speaker_of_eight_layers(tmp_path: Path) -> None:
    config = json.loads((BUNDLED / "speaker" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 8}))
    found = detail_deepstack.eight_groups(str(tmp_path)).stages()
    for one in found.values():
        one.model.check()
    assert [len(one.model.arrange.added_before()) for one in found.values()] == [1, 2, 4, 8]
    assert [one.model.encoder.plan((192, 192)).tiles.size for one in found.values()] == [1, 2, 4, 8]
    assert {tokens(one) for one in found.values()} == {36}
    with pytest.raises(ValueError, match="6 layers"):
        detail_deepstack.eight_groups("bundled/speaker").stages()["8 groups"].model.check()


def test_digits_are_asked_of_the_arms_of_resolution() -> None:
    read, both = stages("resolution/digits"), stages("resolution")
    assert {arm: one.model for arm, one in read.items()} == {arm: one.model for arm, one in both.items()}
    of = read["whole"].data[0].of
    assert isinstance(of, SmallThings)
    assert {turn.text for sample in (of.build()[0], of.build()[1]) for turn in sample.turns[:1]} == {
        f"{IMAGE_MARK}\nWhat number is written?"
    }


def test_the_encoder_learns_in_two_of_four_arms_that_share_their_start() -> None:
    study = study_of("deepstack/encoder")
    found = study.stages()
    assert [arm for arm, stage in found.items() if stage.learns("encoder")] == ["whole, trained", "DeepStack, trained"]
    for kind in ("whole", "DeepStack"):
        frozen, trained = (study.before(f"{kind}, {how}", seed=1) for how in ("frozen", "trained"))
        assert frozen == trained
        assert frozen[0].model == found[f"{kind}, trained"].model == found[f"{kind}, frozen"].model
        assert not frozen[0].learns("encoder")
        assert frozen[0].data != found[f"{kind}, frozen"].data
    at = study.at("DeepStack, trained", rate=4e-3, seed=1)
    assert at.optimizer.rates == (("encoder", pytest.approx(4e-5)),)


def test_one_picture_is_cut_as_the_docs_say() -> None:
    whole = cost(detail_deepstack.stage().model, image=(192, 192))
    stack = stages("deepstack/controls")["DeepStack"]
    assert (whole.views, cost(stack.model, image=(192, 192)).views) == (1, 5)
