"""The packed textbook figures: splits, credits, tasks, questions."""

import re
from typing import Any

import pytest

from isthmus.data.sources import Textbook
from isthmus.data.sources.packed import read_packed
from isthmus.data.sources.textbook import FOLDER, questions
from isthmus.data.sources.wordings import KINDS, SUBJECT_OF_BOOK, SUBJECTS, clear_kind

SPLITS = ("train", "val", "test")


def rows(name: str) -> list[dict[str, Any]]:
    return [row for row, _ in read_packed(FOLDER) if row["split"] == name]


def test_splits_credits_and_size() -> None:
    figures = {split: rows(split) for split in SPLITS}
    assert {split: len(found) for split, found in figures.items()} == {"train": 2500, "val": 509, "test": 571}
    names = {split: {row["id"] for row in found} for split, found in figures.items()}
    assert not names["train"] & names["val"] | names["train"] & names["test"] | names["val"] & names["test"]
    assert all(row["book"] in SUBJECT_OF_BOOK and "credit" in row and row["source_path"] for row in figures["train"])
    assert sum(bool(row["credit"]) for row in figures["train"]) > 1_000
    assert "CC BY 4.0" in (FOLDER / "LICENSE").read_text()
    bundled = (FOLDER, FOLDER.parent / "nlvr")
    assert sum(path.stat().st_size for folder in bundled for path in folder.iterdir()) < 8_000_000


def test_every_tenth_picture_opens_at_its_size() -> None:
    dataset = Textbook(task="describe", split="test").build()
    for index in range(0, len(dataset), 10):
        width, height = dataset[index].images[0].load().size
        assert 64 <= max(width, height) <= 192
        assert dataset[index].images[0].load().convert("L").getextrema() != (255, 255)


def test_the_tasks_ask_what_they_say() -> None:
    kinds = Textbook(task="kind").build()
    assert {kinds[index].turns[1].text for index in range(0, len(kinds), 8)} == set(KINDS)
    subjects = Textbook(task="subject").build()
    assert {subjects[index].turns[1].text for index in range(0, len(subjects), 8)} == set(SUBJECTS)
    mixed = Textbook().build()
    assert len(mixed) == len(subjects) == 2500
    assert mixed[0].turns[0].text.startswith("<image>\n")
    assert mixed[0].turns[-2].text.removeprefix("<image>\n") == "Describe the picture."
    assert "credit" in mixed[0].meta
    assert all(re.search(r"\w", mixed[index].turns[-1].text) for index in range(0, len(mixed), 8))


@pytest.mark.parametrize(
    ("kind", "figure_type", "clear"),
    [
        ("photo", "photo", "photo"),
        ("graphic", "photo", ""),
        ("graphic", "chart", "chart"),
        ("photo", "chart", ""),
        ("photo", "map", "map"),
        ("photo", "other", ""),
        ("graphic", "equation", ""),
    ],
)
def test_a_kind_counts_when_keywords_and_pixels_agree(kind: str, figure_type: str, clear: str) -> None:
    assert clear_kind(kind, figure_type) == clear


def test_held_out_questions() -> None:
    found = {family: questions(family, 10_000) for family in ("kind", "subject", "describe", "reading", "retrieval")}
    assert {family: len(asked) for family, asked in found.items()} == {
        "kind": 402,
        "subject": 571,
        "describe": 571,
        "reading": 71,
        "retrieval": 571,
    }
    assert {asked[0].meta["metric"] for asked in found.values()} == {"exact", "caption", "anls", "retrieval"}
    for asked in found.values():
        assert all(len(sample.turns) == 1 and sample.meta["answers"] for sample in asked)
    assert all(sample.meta["answers"][0] in KINDS for sample in found["kind"])
    assert questions("kind", 5) == found["kind"][:5]
    assert any(len(sample.meta["answers"]) > 1 for sample in found["reading"])


def test_retrieval_has_one_right_picture_among_eight() -> None:
    asked = questions("retrieval", 60)
    places = set()
    for sample in asked:
        candidates = sample.meta["candidates"]
        assert len({image.key for image in candidates}) == 8
        assert candidates[sample.meta["right"]] == sample.images[0]
        places.add(sample.meta["right"])
    assert places == set(range(8))


def unchecked(made: type[Textbook], **fields: object) -> Textbook:
    """A config as JSON or a command line may give it, without the tests' own type checks."""
    config = object.__new__(made)
    for name, value in {**Textbook().__dict__, **fields}.items():
        object.__setattr__(config, name, value)
    config.__post_init__()
    return config


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="task of Textbook"):
        unchecked(Textbook, task="colour")
    with pytest.raises(ValueError, match="split of Textbook"):
        unchecked(Textbook, split="dev").build()
