"""A study refuses what it could not run fairly; a factorial is every combination of its levels."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_stage import tiny_stage

from isthmus.compare.study import TEXT_ONLY, Arm, Factor, Study
from isthmus.train.stage import Stage

ARMS = (Arm(name="small", replace=(("batch_size", 2),)), Arm(name="large", replace=(("batch_size", 8),)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return tiny_stage(tmp_path_factory.mktemp("study"), epochs=None, steps=20)


def test_an_arm_replaces_by_dotted_path(base: Stage) -> None:
    study = Study(name="s", base=base, arms=ARMS)
    assert {arm: stage.batch_size for arm, stage in study.stages().items()} == {"small": 2, "large": 8}
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        Study(name="s", base=base, arms=(Arm(name="a", replace=(("batch_sise", 2),)),))


def test_a_factorial_has_every_combination(base: Stage) -> None:
    steps = tuple(Arm(name=f"{count} steps", replace=(("steps", count),)) for count in (10, 30))
    factors = (Factor(name="batch", levels=ARMS), Factor(name="steps", levels=steps))
    study = Study(name="s", base=base, factors=factors)
    assert {arm: (stage.batch_size, stage.steps) for arm, stage in study.stages().items()} == {
        "small, 10 steps": (2, 10),
        "small, 30 steps": (2, 30),
        "large, 10 steps": (8, 10),
        "large, 30 steps": (8, 30),
    }
    assert study.by_level()["steps"]["30 steps"] == ("small, 30 steps", "large, 30 steps")


def test_a_shorter_run_keeps_the_seed_and_the_rates_of_parts_in_proportion(base: Stage) -> None:
    study = Study(name="s", base=base, arms=ARMS)
    stage = study.at("small", rate=6e-3, seed=3, fraction=0.3)
    assert (stage.steps, stage.seed, stage.optimizer.peak_lr, stage.validate_every) == (6, 3, 6e-3, 0)
    full = study.at("small", rate=6e-3, seed=3)
    assert (full.steps, full.save_every, full.validate_every) == (20, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ()}, "either `arms` or `factors`"),
        ({"arms": (*ARMS, ARMS[0])}, "'small' is taken"),
        ({"arms": (Arm(name=TEXT_ONLY),)}, "'text-only' is taken"),
        ({"tasks": ("world/cuont",)}, "Did you mean 'world/count'"),
        ({"tasks": ("world/count",), "headline": ("world/position",)}, "`headline`"),
        ({"seeds": (1, 101)}, "both choose rates and judge"),
        ({"seeds": (1, 1)}, "no seed twice"),
        ({"tune_fraction": 0.0}, "tune_fraction"),
        ({"text_only": "smal"}, "Did you mean 'small'"),
        ({"arms": (Arm(name="a", replace=(("validation", ()),)),)}, "no `validation`"),
    ],
)
def test_unfair_or_mistyped_studies_are_refused(base: Stage, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(**{"name": "s", "base": base, "arms": ARMS, **changes})  # type: ignore[arg-type]
