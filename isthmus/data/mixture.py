"""Several sources as one endless, exactly repeatable order of samples.

Which sample stands at a position is a pure function of (seed, position): any step can be the first, and a resumed run
sees what the unbroken one would have seen. A sample that cannot be read is skipped, counted and named; another sample
of the same source takes its place, chosen by the same pure function.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from isthmus.data.prompts import split_turns
from isthmus.data.sample import Sample
from isthmus.data.sources.base import Dataset, Source
from isthmus.data.sources.scene_image import SceneImage

_log = logging.getLogger(__name__)
_TRIES = 100
_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Skip:
    """One sample that could not be used: where it came from, which it was, and why."""

    source: str
    index: int
    reason: str


class OpenedImages:
    """The default acceptance test: every image, video and sound of a sample is decoded once, scenes are not."""

    def __init__(self) -> None:
        self._opened: set[str] = set()

    def __call__(self, sample: Sample) -> None:
        """Raises ValueError when an input of the sample cannot be read."""
        for _, image in sample.inputs:
            key = image.key
            if key not in self._opened:
                if not isinstance(image, SceneImage):
                    image.load()
                self._opened.add(key)


def _raw(seed: int, *parts: object) -> np.random.PCG64:
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=16).digest()
    return np.random.PCG64(int.from_bytes(digest, "big"))


def _order(length: int, seed: int, *parts: object) -> _Numbers:
    """A permutation of `length` numbers, the same in every version of numpy."""
    drawn: _Numbers = np.argsort(_raw(seed, *parts).random_raw(length), kind="stable")
    return drawn


class Mixture:
    """Samples of several sources by weight.

    An epoch has as many samples as all sources together, shared out by weight: one source alone is seen once an epoch,
    two equally weighted sources give half of every epoch each, however long they are. A source that gives less than
    its length goes on in the next epoch where it stopped; one that gives more starts again in a new order.

    With `block` above 1, each run of `block` positions holds samples of one source, and the weights share out blocks;
    what does not fill a block waits for the next epoch.

    Samples that belong together (`SourceConfig.together`) follow each other in every order of their source, and stand
    in one block where it has room for whole groups of them.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        *,
        seed: int,
        accept: Callable[[Sample], None] | None = None,
        fits: Callable[[Sample], None] | None = None,
        single_exchange: bool = False,
        block: int = 1,
    ) -> None:
        """Open the sources.

        Args:
            sources: what to draw from.
            seed: the order's seed.
            accept: raises ValueError for a sample to skip; the default opens file images once.
            fits: raises ValueError for a sample that the model refuses, where its source skips such samples.
            single_exchange: draw one exchange of every conversation, for encoder-decoders.
            block: samples of one source that stand together.

        Raises:
            ValueError: no sources, one that is empty or whose samples cannot stand together, or a block below 1.
        """
        if not sources:
            raise ValueError("A mixture needs one source at least.")
        if block < 1:
            raise ValueError(f"A mixture's block holds 1 sample or more, got {block}.")
        self._datasets: list[Dataset] = [source.of.build() for source in sources]
        self._names = [f"{place}:{type(source.of).__name__}" for place, source in enumerate(sources)]
        for name, dataset in zip(self._names, self._datasets, strict=True):
            if not len(dataset):
                raise ValueError(f"Source {name} has no samples.")
        self._together = [source.of.together for source in sources]
        for name, dataset, together in zip(self._names, self._datasets, self._together, strict=True):
            if len(dataset) % together:
                raise ValueError(f"Source {name} gives samples {together} and {together}, but has {len(dataset)}.")
        self._seed = seed
        self._accept = OpenedImages() if accept is None else accept
        self._fits = [fits if source.unfit == "skip" else None for source in sources]
        self._single_exchange = single_exchange
        self._block = block
        blocks = max(1, sum(map(len, self._datasets)) // block)
        self._shares = _share_out(blocks, [source.weight for source in sources])
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch_order)
        self._pass_order = lru_cache(maxsize=2 * len(sources))(self._make_pass_order)
        self.skipped: dict[tuple[str, int], Skip] = {}
        """What this object has skipped so far, each sample once."""

    def __len__(self) -> int:
        """Samples in one epoch."""
        return sum(self._shares) * self._block

    def __getitem__(self, position: int) -> Sample:
        """The sample at a position of the endless order. Raises ValueError when a source gives nothing readable."""
        return self.draw(position)[0]

    def draw(self, position: int) -> tuple[Sample, tuple[Skip, ...]]:
        """The sample at a position, and what was skipped to find it (a pure function of the position)."""
        source, index = self.place(position)
        dataset, fits = self._datasets[source], self._fits[source]
        skips: list[Skip] = []
        for attempt in range(_TRIES):
            try:
                sample = dataset[index]
                if self._single_exchange:
                    sample = self._one_exchange(sample, position)
                if fits is not None:
                    fits(sample)
                self._accept(sample)
                return sample, tuple(skips)
            except (ValueError, OSError) as error:
                skips.append(self._note(Skip(source=self._names[source], index=index, reason=str(error))))
            index = _raw(self._seed, "instead", position, attempt).random_raw() % len(dataset)
        raise ValueError(
            f"Source {self._names[source]} gave no readable sample in {_TRIES} tries. The last one: {skips[-1].reason}"
        )

    def place(self, position: int) -> tuple[int, int]:
        """Which source's sample stands at a position, and its number there, where nothing is skipped."""
        assert position >= 0
        epoch, place = divmod(position, len(self))
        block, inside = divmod(place, self._block)
        slot = int(self._epoch_order(epoch)[block])
        source = 0
        while slot >= self._shares[source]:
            slot -= self._shares[source]
            source += 1
        length = len(self._datasets[source])
        turn, step = divmod((epoch * self._shares[source] + slot) * self._block + inside, length)
        return source, int(self._pass_order(source, turn)[step])

    def _one_exchange(self, sample: Sample, position: int) -> Sample:
        exchanges = split_turns(sample, history=False)
        if not exchanges:
            raise ValueError(f"Sample {sample.id!r} has no assistant turn to learn.")
        return exchanges[_raw(self._seed, "exchange", position).random_raw() % len(exchanges)]

    def _note(self, skip: Skip) -> Skip:
        if (skip.source, skip.index) not in self.skipped:
            self.skipped[skip.source, skip.index] = skip
            _log.warning("Skipped sample %d of %s: %s", skip.index, skip.source, skip.reason)
        return skip

    def batches(
        self, batch_size: int, *, start_step: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[list[Sample]]:
        """Endless batches from a step on; a step is `batch_size` samples over all ranks, dealt out in turn.

        Raises:
            ValueError: a batch that the ranks do not divide.
        """
        if batch_size < 1 or batch_size % num_ranks or not 0 <= rank < num_ranks:
            raise ValueError(f"A batch of {batch_size} cannot be dealt out to {num_ranks} ranks (this one is {rank}).")
        step = start_step
        while True:
            first = step * batch_size
            yield [self[position] for position in range(first + rank, first + batch_size, num_ranks)]
            step += 1

    def _make_epoch_order(self, epoch: int) -> _Numbers:
        return _order(sum(self._shares), self._seed, "epoch", epoch)

    def _make_pass_order(self, source: int, turn: int) -> _Numbers:
        together = self._together[source]
        firsts = _order(len(self._datasets[source]) // together, self._seed, "pass", source, turn)
        numbers: _Numbers = (firsts[:, None] * together + np.arange(together)).reshape(-1)
        return numbers


def _share_out(total: int, weights: list[float]) -> list[int]:
    """`total` samples by weight, each source one at least."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [max(1, int(share)) for share in exact]
    by_rest = sorted(range(len(weights)), key=lambda place: int(exact[place]) - exact[place])
    for place in by_rest[: max(0, total - sum(shares))]:
        shares[place] += 1
    return shares
