"""The two ablations compare what they say: equal compute, equal steps, and one thing left out."""

import pytest

from isthmus.compare.costs import training_work
from isthmus.recipes.ablations import with_itg, with_stage1
from isthmus.train.objectives import ITC, ITG, ITM


def test_with_itg_gives_both_arms_the_same_flops() -> None:
    study = with_itg()
    without, whole = study.stages().values()
    assert [type(one) for one in without.objectives] == [ITC, ITM]
    assert [type(one) for one in whole.objectives] == [ITC, ITM, ITG]
    assert without.steps is not None
    assert whole.steps is not None
    assert without.steps > whole.steps
    assert training_work(without) == pytest.approx(training_work(whole), rel=0.5 / whole.steps)
    assert study.judge
    contrast, same = (study.before(arm.name, seed=3) for arm in study.arms)
    assert contrast == same  # both go on from one run
    assert [type(one) for one in contrast[0].objectives] == [ITC]
    assert (len(study.seeds), study.at("ITC + ITM", rate=1e-3, seed=1).steps) == (8, without.steps)


def test_with_stage1_gives_both_arms_the_same_steps() -> None:
    study = with_stage1()
    alone, after = study.stages().values()
    compared, first = study.before("stage 1, then stage 2", seed=5)
    assert alone.steps == sum(stage.steps or 0 for stage in (compared, first, after))
    assert first.model == compared.model
    assert (alone.start_from, after.train, alone.train) == (None, ("connector",), ("connector",))
    assert after.model == alone.model
    assert after.model.connector.continues(first.model.connector)
    assert first.model.encoder == alone.model.encoder
    assert (first.seed, len(study.seeds)) == (5, 8)
