"""Evaluate a run without a language model: galleries searched both ways, and descriptions told from wrong ones."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from rich.table import Table

from isthmus.cli.commands import Evaluate
from isthmus.cli.stages import saved_stage
from isthmus.config import did_you_mean
from isthmus.data.sample import Sample
from isthmus.evaluate.benchmarks.alignment import ALIGNMENT
from isthmus.evaluate.bounds import share_bounds
from isthmus.evaluate.gallery import RANKS, Recall, Retrieved, make_gallery, retrieve_both_ways
from isthmus.evaluate.pairs import Preferred, prefer
from isthmus.evaluate.sight import open_run
from isthmus.runs import Run
from isthmus.train.stage import Stage

HELD_OUT = "validation"
"""What the gallery of a stage's own validation sources is called, which is searched when no task is named."""
HOW = {"compared": "by_comparison", "judged": "judged"}
"""What the two ways of scoring are called in the file."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often the right one won, in 0..1, of `num`, with 95% bounds; `chance` is a blind guess's."""

    what: str
    share: float
    low: float
    high: float
    chance: float
    num: int

    @staticmethod
    def of(what: str, share: float, chance: float, num: int) -> "Share":
        """With Wilson's bounds."""
        low, high = share_bounds(min(max(share, 0.0), 1.0) * num, num)
        return Share(what=what, share=share, low=low, high=high, chance=chance, num=num)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of each gallery, the shares that were won, and the file that holds both."""

    galleries: dict[str, Retrieved]
    shares: tuple[Share, ...]
    path: Path


def retrieve_run(command: Evaluate) -> Found:
    """The named tasks of alignment, or the first `num` samples of every validation source as one gallery.

    Raises:
        ValueError: a task or a control that asks a language model, or no task and no validation to search.
    """
    if command.control != "none" or command.blind:
        raise ValueError(
            f"{command.run} was trained without a language model: chance stands beside what it finds, and there is no "
            f"control to ask. Leave out --control and --blind."
        )
    if command.prompt or command.num_beams > 1:
        raise ValueError(f"{command.run} writes no answers: leave out --prompt and --num-beams.")
    for name in command.tasks:
        if name not in ALIGNMENT:
            raise ValueError(
                f"{command.run} was trained without a language model: it answers no tasks such as {name!r}."
                f"{did_you_mean(name, ALIGNMENT)} It can be asked {', '.join(ALIGNMENT)}."
            )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run(command.run)
    imported = "imported_from" in run.stage_json
    stage = None if imported and command.tasks else saved_stage(command.run)
    judge = command.judge if stage is None or stage.passes.match else 0  # what was imported has every head
    model, encoder = open_run(run, device)
    galleries: dict[str, Retrieved] = {}
    shares: list[Share] = []
    for name in command.tasks or (HELD_OUT,):
        if stage is not None and name == HELD_OUT:
            samples = held_out(stage, command.num)
        else:
            samples = ALIGNMENT[name].make("test", command.num)
        size, vectors = command.batch_size, run.vectors
        with _progress(name) as shown:
            if name != HELD_OUT and ALIGNMENT[name].form == "pairs":
                won = prefer(
                    model,
                    samples,
                    encoder=encoder,
                    batch_size=size,
                    judge=judge > 0,
                    vectors=vectors,
                    on_progress=shown,
                )
                shares += _preferences(name, samples, won, judged=judge > 0)
            else:
                gallery = make_gallery(samples)
                found = retrieve_both_ways(
                    model, gallery, encoder=encoder, k=judge, batch_size=size, vectors=vectors, on_progress=shown
                )
                galleries[name] = found
                shares += _recalls(name, found)
    path = Path(command.run) / "report" / "retrieval.json"
    path.parent.mkdir(exist_ok=True)
    told = {name: {HOW[how]: asdict(recalls) for how, recalls in _ways(one)} for name, one in galleries.items()}
    written = {"ranks": RANKS, "galleries": told, "shares": [asdict(share) for share in shares]}
    path.write_text(json.dumps(written, indent=1), encoding="utf-8")
    return Found(galleries=galleries, shares=tuple(shares), path=path)


def held_out(stage: Stage, num: int) -> list[Sample]:
    """The first `num` samples of every validation source.

    Raises:
        ValueError: the stage has none.
    """
    if not stage.validation:
        raise ValueError(f"Stage {stage.name!r} has no validation sources, so there is no gallery to search.")
    sets = [source.of.build() for source in stage.validation]
    return [dataset[index] for dataset in sets for index in range(min(num, len(dataset)))]


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how much is done, and of how much."""
    with Progress() as bars:
        bar = bars.add_task(f"Judging {name}")
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _ways(found: Retrieved) -> list[tuple[str, Recall]]:
    """Recalls by comparison alone, and judged again where anything was."""
    compared = [("compared", found.by_comparison)]
    return [*compared, ("judged", found.judged)] if found.num_judged else compared


def _recalls(name: str, found: Retrieved) -> list[Share]:
    """R@1 of each way, compared and judged. Chance is that of a blind guess for the mean query."""
    shares = []
    for how, one in _ways(found):
        for way, value, asked in (
            ("image to text", one.to_text[0], one.num_images),
            ("text to image", one.to_image[0], one.num_texts),
        ):
            shares.append(Share.of(f"{name}: R@1 {way}, {how}", value, _chance(one, way), asked))
    return shares


def _chance(one: Recall, way: str) -> float:
    """Right pairs are at least as many as the larger side, and a query's are shared out evenly on average."""
    pairs = max(one.num_images, one.num_texts)
    return pairs / (one.num_images * one.num_texts)


def _preferences(name: str, samples: Sequence[Sample], won: Preferred, *, judged: bool) -> list[Share]:
    shares = []
    for how, one in (("compared", won.compared), ("judged", won.judged))[: 1 + judged]:
        shares.append(Share.of(f"{name}: the true one wins, {how}", sum(one) / len(one), 0.5, len(one)))
        for attribute in ("colour", "shape", "size"):
            some = [
                value
                for value, sample in zip(one, samples, strict=True)
                if sample.meta["detail"]["attribute"] == attribute
            ]
            if some:
                shares.append(Share.of(f"{name}: {attribute}, {how}", sum(some) / len(some), 0.5, len(some)))
    return shares


def tables(found: Found) -> list[Table]:
    """Recalls in percent, by comparison alone and judged again; then every share with its bounds beside chance."""
    made = [_recall_table(name, one) for name, one in found.galleries.items()]
    shares = Table("share", title="With 95% bounds")
    for heading in ("%", "from", "to", "chance", "times chance", "asked"):
        shares.add_column(heading, justify="right")
    for one in found.shares:
        values = (f"{100 * value:.1f}" for value in (one.share, one.low, one.high, one.chance))
        shares.add_row(one.what, *values, f"{one.share / one.chance:.1f} ({one.low / one.chance:.1f})", str(one.num))
    return [*made, shares]


def _recall_table(name: str, found: Retrieved) -> Table:
    one = found.judged
    made = Table(f"{name}: {one.num_images} images, {one.num_texts} texts; R@1 by chance {100 * one.chance:.1f}")
    for rank in RANKS:
        made.add_column(f"R@{rank}", justify="right")
    for how, recalls in _ways(found):
        for way, values in (("image to text", recalls.to_text), ("text to image", recalls.to_image)):
            made.add_row(f"{way}, {how}", *(f"{100 * value:.1f}" for value in values))
    return made
