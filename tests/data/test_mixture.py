"""The order of a mixture: exact, repeatable, by weight, and never ended by a bad sample."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice

import pytest

from isthmus.data.mixture import Mixture
from isthmus.data.sample import Sample, Turn
from isthmus.data.sources.base import Dataset, Source, SourceConfig


@dataclass(frozen=True, kw_only=True)
class Letters(SourceConfig):
    """`length` samples named after `name`; those in `bad` cannot be made."""

    name: str
    length: int
    bad: tuple[int, ...] = ()
    exchanges: int = 1

    def build(self) -> Dataset:
        return _Letters(self)


class _Letters:
    def __init__(self, config: Letters) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.length

    def __getitem__(self, index: int) -> Sample:
        if index in self.config.bad:
            raise ValueError(f"line {index} of {self.config.name} is broken")
        turns = tuple(
            Turn(role=role, text=f"{role[0]}{number}")
            for number in range(self.config.exchanges)
            for role in ("user", "assistant")
        )
        return Sample(id=f"{self.config.name}{index}", turns=turns)


def mixed(*sources: Source, seed: int = 0) -> Mixture:
    return Mixture(sources, seed=seed)


def names(mixture: Mixture, start: int, stop: int) -> list[str]:
    return [mixture[position].id for position in range(start, stop)]


def test_one_source_is_seen_once_an_epoch_in_new_order() -> None:
    mixture = mixed(Source(of=Letters(name="a", length=50)))
    first, second = names(mixture, 0, 50), names(mixture, 50, 100)
    assert sorted(first) == sorted(second) == sorted(f"a{index}" for index in range(50))
    assert first != second


def test_weights_are_shares_and_epochs_are_exact() -> None:
    mixture = mixed(
        Source(of=Letters(name="a", length=30), weight=3.0), Source(of=Letters(name="b", length=10), weight=1.0)
    )
    assert len(mixture) == 40
    for epoch in range(3):
        assert Counter(name[0] for name in names(mixture, 40 * epoch, 40 * epoch + 40)) == {"a": 30, "b": 10}
    even = mixed(Source(of=Letters(name="a", length=30)), Source(of=Letters(name="b", length=10)))
    drawn = Counter(names(even, 0, 40))
    assert Counter(name[0] for name in names(even, 0, 40)) == {"a": 20, "b": 20}
    assert {drawn[f"b{index}"] for index in range(10)} == {2}
    assert len({name for name in names(even, 0, 80) if name[0] == "a"}) == 30


def test_a_block_is_of_one_source_and_weights_share_out_blocks() -> None:
    sources = (Source(of=Letters(name="a", length=30)), Source(of=Letters(name="b", length=13), weight=3.0))
    mixture = Mixture(sources, seed=0, block=5)
    assert len(mixture) == 40  # eight whole blocks of 43 samples
    kinds = [{name[0] for name in names(mixture, 5 * block, 5 * block + 5)} for block in range(24)]
    assert all(len(kind) == 1 for kind in kinds)
    for epoch in range(3):
        assert Counter(kind for (kind,) in kinds[8 * epoch : 8 * epoch + 8]) == {"a": 2, "b": 6}
    seen = Counter(name for name in names(mixture, 0, 3 * 40) if name[0] == "a")
    assert seen == {f"a{index}": 1 for index in range(30)}  # what an epoch leaves comes in the next
    with pytest.raises(ValueError, match="block holds 1 sample or more, got 0"):
        Mixture(sources, seed=0, block=0)


def test_a_tiny_weight_still_gives_a_sample() -> None:
    mixture = mixed(Source(of=Letters(name="a", length=9)), Source(of=Letters(name="b", length=1), weight=1e-6))
    assert "b0" in names(mixture, 0, len(mixture))


@pytest.mark.parametrize("step", [0, 1, 7, 50])
def test_any_step_can_be_the_first(step: int) -> None:
    sources = (Source(of=Letters(name="a", length=13)), Source(of=Letters(name="b", length=5), weight=0.5))
    unbroken = [[s.id for s in batch] for batch in islice(mixed(*sources).batches(4), step + 3)]
    resumed = [[s.id for s in batch] for batch in islice(mixed(*sources).batches(4, start_step=step), 3)]
    assert resumed == unbroken[step:]


def test_the_seed_decides_the_order() -> None:
    source = Source(of=Letters(name="a", length=50))
    assert names(mixed(source), 0, 50) == names(mixed(source), 0, 50)
    assert names(mixed(source), 0, 50) != names(mixed(source, seed=1), 0, 50)


def test_the_order_is_the_same_on_every_machine() -> None:
    assert names(mixed(Source(of=Letters(name="a", length=8))), 0, 8) == LITERAL_ORDER


LITERAL_ORDER = ["a5", "a4", "a6", "a1", "a3", "a7", "a0", "a2"]


def test_ranks_share_a_batch() -> None:
    mixture = mixed(Source(of=Letters(name="a", length=40)))
    whole = next(mixture.batches(6, start_step=2))
    parts = [next(mixture.batches(6, start_step=2, rank=rank, num_ranks=2)) for rank in range(2)]
    assert [parts[place % 2][place // 2].id for place in range(6)] == [sample.id for sample in whole]
    with pytest.raises(ValueError, match="cannot be dealt out"):
        next(mixture.batches(5, num_ranks=2))


def test_a_bad_sample_is_counted_named_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    sources = (Source(of=Letters(name="a", length=20, bad=(3, 11))),)
    mixture = mixed(*sources)
    first = names(mixture, 0, 40)
    assert not {"a3", "a11"} & set(first)
    assert len(first) == 40
    assert {skip.index: skip.reason for skip in mixture.skipped.values()} == {
        3: "line 3 of a is broken",
        11: "line 11 of a is broken",
    }
    assert sum("line 3 of a is broken" in record.getMessage() for record in caplog.records) == 1
    assert names(mixed(*sources), 20, 40) == first[20:]
    position = next(place for place in range(20) if mixture.draw(place)[1])
    assert mixture.draw(position) == mixed(*sources).draw(position)


def test_accept_can_refuse_a_sample() -> None:
    def refuse_a1(sample: Sample) -> None:
        if sample.id == "a1":
            raise ValueError("its image is cut short")

    mixture = Mixture((Source(of=Letters(name="a", length=4)),), seed=0, accept=refuse_a1)
    assert "a1" not in names(mixture, 0, 12)
    assert [skip.reason for skip in mixture.skipped.values()] == ["its image is cut short"]


def test_a_source_without_any_good_sample_is_an_error() -> None:
    mixture = mixed(Source(of=Letters(name="a", length=3, bad=(0, 1, 2))))
    with pytest.raises(ValueError, match=r"0:Letters gave no readable sample.*is broken"):
        mixture[0]


def test_one_exchange_of_a_conversation() -> None:
    source = Source(of=Letters(name="a", length=40, exchanges=3))
    mixture = Mixture((source,), seed=0, single_exchange=True)
    drawn = [mixture[position] for position in range(40)]
    assert {tuple(turn.text for turn in sample.turns) for sample in drawn} == {("u0", "a0"), ("u1", "a1"), ("u2", "a2")}
    assert drawn == [mixture[position] for position in range(40)]


def test_wrong_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="one source at least"):
        mixed()
    with pytest.raises(ValueError, match="has no samples"):
        mixed(Source(of=Letters(name="a", length=0)))
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight is above zero"):
            Source(of=Letters(name="a", length=1), weight=weight)
