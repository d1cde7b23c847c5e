"""The table of sources in a recipe's docstring, read and matched."""

from isthmus.connectors import MlpConfig
from isthmus.data.sources import Source, Textbook
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


def test_what_was_set_is_marked() -> None:
    values = provenance(Cosine(warmup_fraction=0.1), "", Cosine())
    assert {one.path: one.source for one in values} == {
        "warmup_fraction": "set by you",
        "warmup_steps": DEFAULT,
        "min_fraction": DEFAULT,
    }
