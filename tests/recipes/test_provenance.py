"""The table of sources in a recipe's docstring, read and matched, and followed into the recipes that it names."""

import re

import pytest

from isthmus.connectors import MlpConfig
from isthmus.data.sources import Source, Textbook
from isthmus.recipes import RECIPES
from isthmus.recipes.provenance import DEFAULT, leaves, provenance, source_of, table
from isthmus.train.stage import Cosine

DOCSTRING = """One line.

    Some words: not a source.

    Sources (paper = arXiv:0000.00000):
        connector, prompt: paper section 3: an MLP
        connector.depth: code, a flag
            that goes on here
        seed: elsewhere

    After a blank line: no source either.
"""


def test_the_table_is_read() -> None:
    assert table(DOCSTRING) == {
        "connector": "paper section 3: an MLP",
        "prompt": "paper section 3: an MLP",
        "connector.depth": "code, a flag that goes on here",
        "seed": "elsewhere",
    }


def test_the_longest_path_wins() -> None:
    sources = table(DOCSTRING)
    assert source_of("connector.depth", sources) == "code, a flag that goes on here"
    assert source_of("connector.other", sources) == "paper section 3: an MLP"
    assert source_of("connectors", sources) == DEFAULT


def test_leaves_of_nested_configs() -> None:
    assert list(leaves(MlpConfig(depth=3))) == [("depth", 3)]
    assert list(leaves(Source(of=Textbook(task="kind"), weight=2.0))) == [
        ("of", "Textbook"),
        ("of.task", "kind"),
        ("of.split", "train"),
        ("weight", 2.0),
        ("whole_batches", False),
        ("unfit", "refuse"),
    ]


def sources(name: str) -> dict[str, str]:
    return {one.path: one.source for one in provenance(RECIPES[name](), RECIPES[name].make.__doc__ or "")}


def test_what_is_taken_over_brings_its_source_and_its_mark() -> None:
    tuned, stacked, sound = (
        sources(name) for name in ("internvl15/stage2", "deepstack/v/stage2", "video-llama/audio/stage2")
    )
    assert tuned["model.llm.name"].startswith("as in internvl15/stage1 (there: unverified: a conversion")
    assert tuned["model.encoder.checkpointing"] == "as in internvl15/stage1 (there: code, grad_checkpoint)"
    assert stacked["model.encoder.tower.fit"] == (
        "as in deepstack/l/stage1 (model.encoder) (there: paper section 3.1: the whole image resized to 336 px)"
    )
    assert stacked["model.prompt"].startswith("as in llava15/stage2 (there: code, --version v1")
    assert sound["model.connector.image.layers"].startswith("as in blip2/stage1, without the text side (there: paper")
    assert sources("llava15-hd/stage2")["train"] == "paper section 3.4: as in llava15/stage2, and the end token"


def test_what_no_paper_sets_is_not_given_a_paper() -> None:
    told, heard = sources("llava15/stage1"), sources("video-llama/vision/stage1")
    assert told["data.0.of.audio_rate"].startswith("ours: ")
    assert told["data.0.of.path"].startswith("paper, LCS-558K")
    assert told["model.llm.lora.alpha"] == "not used: no adapters"
    assert told["model.captions.max_tokens"].startswith("not used: captions")
    assert told["schedule.warmup_fraction"].startswith("code, ")
    assert sources("blip2/stage1")["model.captions.max_tokens"].startswith("code, max_txt_len=32")
    assert heard["schedule.warmup_fraction"] == "not used: warmup_steps counts"
    assert heard["data.0.of.frames.num"] == "code, n_frms: 8, evenly spread"


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_as_in_another_recipe_equals_it_there(name: str) -> None:
    """One that is told in the same words as its table writes was not found there. What follows a comma may differ."""
    written = table(RECIPES[name].make.__doc__ or "")
    raw = {path: source_of(path, written) for path, _ in leaves(RECIPES[name]())}
    plain = re.compile(r"(?:^|: )as in ([\w/-]+)(?: \([\w.]+\))?(?:;|$)")
    taken = {path: found[1] for path, source in raw.items() if (found := plain.search(source))}
    assert set(taken.values()) <= set(RECIPES)
    told = sources(name)
    assert [path for path in taken if told[path] == raw[path]] == []


def test_what_was_set_is_marked() -> None:
    values = provenance(Cosine(warmup_fraction=0.1), "", Cosine())
    assert {one.path: one.source for one in values} == {
        "warmup_fraction": "set by you",
        "warmup_steps": DEFAULT,
        "min_fraction": DEFAULT,
    }
