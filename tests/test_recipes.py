"""Promises of every recipe, by listing, then the numbers of LLaVA-1.5."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.stages import TYPES
from isthmus.config import from_json, to_json
from isthmus.data.sources import LlavaFile
from isthmus.encoders import VisionEncoder
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.features import Grid
from isthmus.recipes import CHAINS, RECIPES, STUDIES, Recipe, find, llava15
from isthmus.recipes.provenance import DEFAULT, leaves, provenance, table
from isthmus.train.loop import train
from isthmus.weights import BUNDLED

EVERY: dict[str, Recipe[Any]] = {
    **{f"study {name}": study for name, study in STUDIES.items()},
    **{f"chain {name}": chain for name, chain in CHAINS.items()},
    **RECIPES,
}
BUNDLED_RECIPES = [name for name in RECIPES if name in ("quickstart", "grounding", "clips") or "/tiny" in name]
"""Recipes whose models and data come with the package; tests/recipes/test_papers.py tries the others by replacement."""


@pytest.mark.parametrize("name", EVERY)
def test_summary_is_the_docstrings_first_line(name: str) -> None:
    docstring = EVERY[name].make.__doc__
    assert docstring is not None
    assert EVERY[name].summary == docstring.splitlines()[0]


@pytest.mark.parametrize("name", EVERY)
def test_every_source_names_a_field(name: str) -> None:
    paths = {path for path, _ in leaves(EVERY[name]())}
    whole = {".".join(path.split(".")[:end]) for path in paths for end in range(1, path.count(".") + 2)}
    sources = table(EVERY[name].make.__doc__ or "")
    assert sources
    assert [path for path in sources if path not in whole] == []


@pytest.mark.parametrize("name", RECIPES)
def test_every_number_has_a_source(name: str) -> None:
    values = provenance(RECIPES[name](), RECIPES[name].make.__doc__ or "")
    assert [one.path for one in values if one.source == DEFAULT] == []


@pytest.mark.parametrize("name", RECIPES)
def test_the_name_is_the_stages_and_json_reads_back(name: str) -> None:
    stage = RECIPES[name]()
    assert stage.name == name
    assert from_json(to_json(stage), TYPES) == stage


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_of_recipes_that_go_on_from_one_another(name: str) -> None:
    chain = CHAINS[name]()
    assert chain.name == name
    assert chain.stages == tuple(RECIPES[stage.name]() for stage in chain.stages)
    assert name not in RECIPES
    chain.check()
    assert [task for task in chain.asked if task not in {**BENCHMARKS, **ALIGNMENT}] == []


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown recipe 'llava15/stage3'\. Did you mean 'llava15/stage"):
        find("llava15/stage3", RECIPES, "recipe")


def test_llava15_stage1_has_the_papers_numbers() -> None:
    stage = llava15.stage1()
    encoder = stage.model.encoder
    assert isinstance(encoder, VisionEncoder)
    assert (encoder.name, encoder.image_size) == ("openai/clip-vit-large-patch14-336", 336)
    assert (encoder.layers, encoder.class_token, encoder.final_norm, encoder.fit) == ((-2,), False, False, "pad")
    assert to_json(stage.model.connector) == {"type": "MlpConfig", "depth": 2}
    assert stage.model.llm is not None
    assert (stage.model.llm.name, stage.model.llm.max_tokens) == ("lmsys/vicuna-7b-v1.5", 2_048)
    assert (stage.train, stage.epochs, stage.batch_size) == (("connector",), 1, 256)
    assert (stage.optimizer.peak_lr, stage.optimizer.weight_decay) == (1e-3, 0.0)
    assert (stage.schedule.warmup_fraction, stage.schedule.min_fraction) == (0.03, 0.0)
    assert isinstance(stage.data[0].of, LlavaFile)
    assert type(stage.model.prompt).__name__ == "Plain"


def test_llava15_stage2_differs_where_the_paper_says() -> None:
    first, second = dict(leaves(llava15.stage1())), dict(leaves(llava15.stage2()))
    changed = {path: second[path] for path in second if first.get(path) != second[path]}
    changed.pop("model.prompt.system")
    changed.pop("data.0.of.path")
    changed.pop("data.0.of.root")
    assert changed == {
        "name": "llava15/stage2",
        "start_from": "llava15/stage1",
        "model.prompt": "Vicuna",
        "train": ("connector", "llm"),
        "optimizer.peak_lr": 2e-5,
        "batch_size": 128,
        "micro_batch_size": 16,
    }


@pytest.mark.parametrize("number", [1, 2])
def test_the_tiny_stage_is_the_same_by_replacement(number: int) -> None:
    large, tiny = (dict(leaves(RECIPES[f"llava15/{size}stage{number}"]())) for size in ("", "tiny-"))
    kept = ("optimizer", "schedule", "train", "batch_size", "objectives", "seed", "model.connector", "model.prompt")
    kept += ("model.encoder.layers", "model.encoder.fit", "model.encoder.class_token", "model.placement")
    for path, value in large.items():
        if path.startswith(kept):
            assert tiny[path] == value, path


def test_studies_share_their_arms_and_steps() -> None:
    quick, long = (STUDIES[name]() for name in ("quickstart", "readme"))
    assert [arm.name for arm in quick.arms] == ["mlp", "average-pool", "pixel-shuffle", "q-former"]
    *same, aligned = long.arms
    assert tuple(same) == quick.arms
    assert [stage.name for stage in aligned.before] == ["blip2/tiny-contrast", "blip2/tiny-stage1"]
    assert aligned.stage(long.base).model.encoder == long.base.model.encoder == aligned.before[0].model.encoder
    assert aligned.stage(long.base).model.connector.num_tokens(Grid(1, 12, 12)) == 36
    assert len(quick.seeds) == 2
    assert len(long.seeds) == 5
    assert quick.base.model == long.base.model
    assert (quick.base.train, long.base.train) == (("connector",), ("connector",))


@pytest.mark.long
@pytest.mark.parametrize("name", BUNDLED_RECIPES)
def test_a_recipe_takes_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    assert (BUNDLED / "eye" / "config.json").is_file()
    stage = replace(RECIPES[name](), start_from=None, steps=2, batch_size=4, micro_batch_size=2, validation=())
    run = train(stage, tmp_path / "run", progress=False)
    assert run.finished
    assert run.result["steps"] == 2
