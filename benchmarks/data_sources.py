"""Samples and pictures a second of every bundled source, in CPU time of one core.

python -m benchmarks.data_sources
"""

import itertools
import time

from isthmus.data.mixture import Mixture
from isthmus.data.sources import NlvrBoxes, Source, SourceConfig, Textbook, WorldCaptions, WorldChat

NUM = 1_000


def main() -> None:
    """Print one line a source: samples made, keys computed, pictures loaded a second."""
    configs: tuple[SourceConfig, ...] = (
        WorldChat(num_scenes=NUM),
        WorldCaptions(num_scenes=NUM),
        Textbook(),
        NlvrBoxes(),
    )
    for config in configs:
        mixture = Mixture((Source(of=config),), seed=0, accept=lambda sample: None)
        assert mixture[len(mixture)].images, "the first draw opens the source's files"
        times = [time.process_time()]
        samples = [mixture[position] for position in range(NUM)]
        times.append(time.process_time())
        keys = {sample.images[0].key for sample in samples}
        times.append(time.process_time())
        loaded = [sample.images[0].load() for sample in samples]
        times.append(time.process_time())
        assert len(loaded) == NUM >= len(keys)
        made, keyed, opened = (round(NUM / (end - start)) for start, end in itertools.pairwise(times))
        print(f"{type(config).__name__}: {made} samples, {keyed} keys, {opened} pictures a second")


if __name__ == "__main__":
    main()
