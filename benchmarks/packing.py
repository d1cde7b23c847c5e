"""Tokens and samples a second of training with packed rows (`isthmus train --pack`), against rows apart.

python -m benchmarks.packing              # a few minutes of one core
python -m benchmarks.packing --tiny       # a check that it runs

Whole steps of quickstart's model and stage (bundled eye, cached; MLP; bundled speaker, frozen): the batch, forward,
backward and the optimizer. Two mixtures of eight samples a step:
    quickstart   its own data
    uneven       pictures with one short question, every fourth with eight and a description
Both arms start from the same weights; their losses on every batch are compared first. A round takes all steps of a
mixture in one arm, then in the other, the first of them turn about; the first round warms up and is left out. Times are
those of the processor, on one thread, so that other work on the machine counts little: medians over rounds, with the
slowest and the fastest; a ratio is that of the arms' times in one round.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from isthmus.data.sources import Source, WorldChat
from isthmus.llms.packing import first_fit
from isthmus.recipes import quickstart
from isthmus.train.options import RunOptions
from isthmus.train.progress import ProgressDisplay
from isthmus.train.setup import Setup, open_folder, set_up
from isthmus.train.stage import Stage
from isthmus.train.steps import Steps

ARMS = ("apart", "packed")
SHORT = WorldChat(split="train", num_scenes=400, questions=1)
LONG = WorldChat(split="train", num_scenes=400, questions=8, caption=True)
MIXTURES = {
    "quickstart": quickstart.stage().data,
    "uneven": (Source(of=SHORT, weight=0.75), Source(of=LONG, weight=0.25)),
}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Of all batches: real tokens, and the places that the language model computes for them in each arm."""

    tokens: int
    samples: int
    apart: int
    packed: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of the processor of every round by arm, over the same batches."""

    seconds: dict[str, list[float]]
    places: Places
    difference: float
    """The largest of the arms' summed losses on a batch, as a share of it."""

    def ratios(self) -> list[float]:
        """How many times faster packed rows were, by round."""
        return [one / other for one, other in zip(self.seconds["apart"], self.seconds["packed"], strict=True)]


def stage_of(mixture: str, *, steps: int, batch_size: int) -> Stage:
    """Quickstart with other data and a few steps; nothing is validated, saved or looked at in between."""
    return replace(
        quickstart.stage(),
        data=MIXTURES[mixture],
        validation=(),
        steps=steps,
        batch_size=batch_size,
        save_every=10**6,
        validate_every=0,
        log_every=10**6,
    )


@contextmanager
def arms_of(stage: Stage) -> Iterator[dict[str, Setup]]:
    """Both arms ready for their first step, features encoded."""
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as folder, ProgressDisplay(show=False, call=None) as display:
        made = {}
        for arm in ARMS:
            open_folder(stage, Path(folder) / arm, resume=False, start=None, accelerator=accelerator)
            options = RunOptions(pack=arm == "packed")
            made[arm] = set_up(stage, Path(folder) / arm, accelerator=accelerator, display=display, options=options)
        yield made


def places_of(setup: Setup) -> Places:
    """What the arms compute over all steps' batches, by the lengths of their rows."""
    llm = setup.stage.model.llm
    assert llm is not None
    tokens = samples = apart = packed = 0
    for step in range(setup.num_steps):
        for batch in setup.feed.step(step):
            lengths = batch.mask.sum(dim=1).tolist()
            packs = first_fit(lengths, llm.max_tokens)
            tokens, samples, apart = tokens + sum(lengths), samples + len(lengths), apart + batch.mask.numel()
            packed += len(packs) * max(sum(lengths[row] for row in pack) for pack in packs)
    return Places(tokens=tokens, samples=samples, apart=apart, packed=packed)


@torch.no_grad()
def difference(arms: dict[str, Setup]) -> float:
    """The largest difference of the arms' losses on a batch, as a share of it. Fails above 1e-4."""
    worst = 0.0
    for step in range(arms["apart"].num_steps):
        for batch in arms["apart"].feed.step(step):
            one, other = (float(sum(arms[arm].losses(batch).values())) for arm in ARMS)
            worst = max(worst, abs(one - other) / abs(one))
    assert worst < 1e-4, worst
    return worst


def measure(mixture: str, *, steps: int, rounds: int, batch_size: int) -> Measured:
    """So many rounds of both arms over the same batches, after one to warm up."""
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with arms_of(stage_of(mixture, steps=steps, batch_size=batch_size)) as arms:
        places, worst = places_of(arms["apart"]), difference(arms)
        with ProgressDisplay(show=False, call=None) as display:
            taking = {arm: Steps(setup, display=display, first=0) for arm, setup in arms.items()}
            for number in range(rounds + 1):
                for arm in ARMS if number % 2 else reversed(ARMS):
                    begun = time.process_time()
                    for step in range(steps):
                        taking[arm].take(step)
                    seconds[arm].append(time.process_time() - begun)
    return Measured(seconds={arm: some[1:] for arm, some in seconds.items()}, places=places, difference=worst)


def table(mixture: str, found: Measured) -> str:
    """The rows of one mixture."""
    places = found.places
    lines = [
        f"{mixture}: {places.samples} samples of {places.tokens / places.samples:.0f} tokens; places computed: "
        f"{places.apart:,} apart ({1 - places.tokens / places.apart:.0%} padding), {places.packed:,} packed "
        f"({1 - places.tokens / places.packed:.0%}); losses differ by {found.difference:.1e} at most"
    ]
    for arm in ARMS:
        some = found.seconds[arm]
        rates = [places.tokens / one for one in (statistics.median(some), max(some), min(some))]
        speed = places.samples / statistics.median(some)
        lines.append(f"  {arm:7} {rates[0]:7.0f} tokens/s ({rates[1]:.0f} to {rates[2]:.0f}), {speed:6.2f} samples/s")
    ratios = found.ratios()
    lines.append(
        f"  packed is {statistics.median(ratios):.2f} times as fast as apart ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print both mixtures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=3, help="steps of an arm in a round")
    parser.add_argument("--rounds", type=int, default=4, help="rounds after one to warm up")
    args = parser.parse_args()
    size = {"steps": 1, "rounds": 1, "batch_size": 2} if args.tiny else {"steps": args.steps, "rounds": args.rounds}
    torch.set_num_threads(1)
    for mixture in MIXTURES:
        print(table(mixture, measure(mixture, **({"batch_size": quickstart.stage().batch_size} | size))))


if __name__ == "__main__":
    main()
