"""The exact world as conversations, descriptions and held-out questions."""

from collections import Counter

import pytest

from isthmus.data.sources.scene_image import SceneImage
from isthmus.data.sources.wordings import DESCRIBE
from isthmus.data.sources.world import FAMILIES, WorldStyle
from isthmus.data.sources.world_chat import WorldCaptions, WorldChat, questions


def test_a_conversation_opens_with_the_image_and_ends_with_the_description() -> None:
    dataset = WorldChat(num_scenes=40, caption=True).build()
    for index in range(40):
        sample = dataset[index]
        assert [turn.role for turn in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2)
        assert sample.turns[0].text.startswith("<image>\n")
        assert all("<image>" not in turn.text for turn in sample.turns[1:])
        assert sample.turns[-2].text.removeprefix("<image>\n") == DESCRIBE
        assert len(sample.meta["families"]) == len(sample.turns) // 2 <= 9
        questions_asked = [turn.text for turn in sample.turns if turn.role == "user"]
        assert len(set(questions_asked)) == len(questions_asked)
    counts = Counter(family for index in range(40) for family in dataset[index].meta["families"])
    assert set(counts) >= {"attribute", "count", "position", "existence", "describe"}


def test_families_and_numbers_are_the_configs() -> None:
    dataset = WorldChat(num_scenes=30, families=("count", "position"), questions=3).build()
    for index in range(30):
        assert set(dataset[index].meta["families"]) <= {"count", "position"}
        assert len(dataset[index].turns) <= 6


def test_rare_families_are_found_and_impossible_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.data.sources.world_chat._TRIES", 80)
    dataset = WorldChat(num_scenes=10, families=("reading",), style=WorldStyle(writing=0.1)).build()
    assert all(dataset[index].meta["families"][0] == "reading" for index in range(10))
    with pytest.raises(ValueError, match="offers a question of the families"):
        WorldChat(num_scenes=1, families=("chart",), style=WorldStyle(chart=0.0)).build()[0]


def test_seeds_and_splits_give_other_scenes() -> None:
    keys = {
        (split, seed): {WorldChat(num_scenes=30, split=split, seed=seed).build()[i].images[0].key for i in range(30)}
        for split in ("train", "val")
        for seed in (0, 1)
    }
    assert len(set.union(*keys.values())) == 120


def test_captions_may_have_a_question_or_none() -> None:
    asked = WorldCaptions(num_scenes=1).build()[0]
    bare = WorldCaptions(num_scenes=1, question="").build()[0]
    assert [turn.text for turn in asked.turns][:1] == [f"<image>\n{DESCRIBE}"]
    assert [turn.text for turn in bare.turns] == ["<image>", asked.turns[1].text]


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_questions_are_closed_and_from_distinct_test_scenes(family: str) -> None:
    asked = questions(family, 60)
    assert len(asked) == 60
    assert len({sample.id for sample in asked}) == 60
    for sample in asked:
        meta = sample.meta
        assert meta["family"] == family
        assert meta["metric"] == "exact"
        assert len(sample.turns) == 1
        assert sample.turns[0].text.startswith("<image>\n")
        assert len(meta["answers"]) == 1
        assert meta["answers"][0] in meta["choices"]
        assert 0.0 < meta["chance"] <= 0.6
        assert isinstance(sample.images[0], SceneImage)
        assert sample.images[0].scene.split == "test"
    groups = {sample.meta["group"]: sample.images[0].key for sample in asked}
    assert 30 <= len(groups) == len(set(groups.values()))
    assert questions(family, 60) == asked
    assert questions(family, 60, seed=1) != asked


def test_wrong_configs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.data.sources.world_chat._TRIES", 30)
    with pytest.raises(ValueError, match="1 scene and 32 pixels"):
        WorldChat(num_scenes=0)
    with pytest.raises(ValueError, match="of some of the families"):
        WorldChat(families=("colour",))
    with pytest.raises(ValueError, match="one manner"):
        WorldCaptions(manners=())
    with pytest.raises(ValueError, match="No 'chart' question"):
        questions("chart", 5, style=WorldStyle(chart=0.0))
