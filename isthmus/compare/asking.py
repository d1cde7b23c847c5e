"""Everything a judged run is asked: its tasks, the blind controls, the watched items before the last fifth."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from isthmus.compare.jobs import Asked
from isthmus.compare.study import TASKS
from isthmus.data.sample import Sample
from isthmus.encoders.cached import CachedEncoder
from isthmus.evaluate.benchmarks import BENCHMARKS
from isthmus.evaluate.record import Answer, Control, accuracy, read_answers, write_answers
from isthmus.evaluate.retrieval import retrieve
from isthmus.evaluate.runner import evaluate
from isthmus.evaluate.sight import OwnEncoder
from isthmus.measure import time_to_first_token
from isthmus.model import VisionLanguageModel
from isthmus.runs import Run, load_trained
from isthmus.weights import load_safetensors

EARLY = "early"
Way = TypeVar("Way", bound=str)
Made = TypeVar("Made", bound=Asked)


@lru_cache(maxsize=64)
def items_of(task: str, num: int) -> tuple[Sample, ...]:
    """A benchmark's test items, the same for every arm and seed; made once in a process."""
    return tuple(TASKS[task].items("test", num))


class Asking(ABC, Generic[Way, Made]):
    """One finished run and its questions; `encoder` is None where the run trained its own.

    What is asked in one way is kept in one file of `folder`; answers that are there already are read, not asked for
    again.
    """

    def __init__(self, run: Run, asked: Made, encoder: CachedEncoder | None, folder: Path) -> None:
        self.run = run
        self.asked = asked
        self.cached = encoder
        self.folder = folder
        self._model: VisionLanguageModel | None = None
        self._answers: dict[str, list[Answer]] = {}

    @property
    def model(self) -> VisionLanguageModel:
        """The trained model, with its encoder where that was trained; loaded when first asked."""
        if self._model is None:
            self._model = self.run.load_model(with_encoder=self.with_encoders)
        return self._model

    @property
    def with_encoders(self) -> bool:
        """Whether the model is loaded with its encoders: it trained one, or has those of clips or sounds."""
        return self.cached is None or bool(self.run.model_config.branches)

    @property
    def encoder(self) -> CachedEncoder | OwnEncoder:
        """What sees the pictures."""
        return OwnEncoder(self.model) if self.cached is None else self.cached

    @property
    @abstractmethod
    def ways(self) -> tuple[Way, ...]:
        """How everything is asked; the first is the score."""

    @abstractmethod
    def fresh(self, way: Way, report: Callable[[float], None]) -> list[Answer]:
        """Ask now; `report` gets the part done."""

    @abstractmethod
    def watch(self) -> list[Answer]:
        """Ask the watched items with the weights that are loaded."""

    @abstractmethod
    def watched_accuracy(self) -> float:
        """Accuracy on the watched items after training."""

    @property
    def chief(self) -> list[tuple[str, int]]:
        return [(task, num) for task, num in self.asked.tasks if task in self.asked.headline]

    def ask(self, report: Callable[[float, str], None]) -> None:
        """Ask everything; `report` gets the part done."""
        for place, way in enumerate(self.ways):
            path = self.folder / f"{way}.jsonl"
            if not path.is_file():
                write_answers(self.fresh(way, _part_of(report, place, len(self.ways), way)), path)
            self._answers[way] = read_answers(path)

    @property
    def answers(self) -> list[Answer]:
        """What was answered in the first way."""
        return self._answers[self.ways[0]]

    def scores(self) -> dict[str, dict[str, float]]:
        """Accuracy by way and task."""
        return {way: {task: accuracy(found) for task, found in _by_task(answers).items()}
                for way, answers in self._answers.items()}  # fmt: skip

    def counts(self) -> dict[str, dict[str, int]]:
        """Questions behind each of `scores`."""
        return {way: {task: len(found) for task, found in _by_task(answers).items()}
                for way, answers in self._answers.items()}  # fmt: skip

    def early_accuracy(self, weights: Path) -> float | None:
        """Accuracy on the watched items with the weights as they were before the last fifth; None without them."""
        path = self.folder / f"{EARLY}.jsonl"
        if not path.is_file():
            if not weights.is_file() or not self.asked.watch_items:
                return None
            load_trained(self.model, load_safetensors(weights), source=str(weights), with_encoder=self.with_encoders)
            write_answers(self.watch(), path)
            self._model = None
        return accuracy(read_answers(path))

    def first_token_ms(self) -> float | None:
        """Median time from a picture's file to the first new token, where there are any; beside the other workers."""
        return None


class Answering(Asking[Control, Asked]):
    """A run that answers questions with text."""

    @property
    def ways(self) -> tuple[Control, ...]:
        """What this run is shown, its own kind of picture first."""
        return ("text-only",) if self.asked.blind else ("none", "mean-image", "shuffled")

    def fresh(self, way: Control, report: Callable[[float], None]) -> list[Answer]:
        """Every task's questions over its own pictures; the headline's alone under a control."""
        plain: list[Sample] = []
        choices: list[Sample] = []
        seeing = way in ("none", "text-only")
        for task, num in self.asked.tasks:
            if not seeing and task not in self.asked.headline:
                continue
            items = items_of(task, num)[: self.asked.control_items if way == "shuffled" else num]
            (choices if BENCHMARKS[task].form == "retrieval" else plain).extend(items)
        answers: list[Answer] = []
        if plain:
            answers += evaluate(
                self.model, plain, encoder=self.encoder, control=way,
                on_progress=lambda done, total: report(done / total),
            )  # fmt: skip
        if choices:
            answers += retrieve(self.model, choices, encoder=self.encoder, control=way)
        return answers

    def watched_items(self) -> list[Sample]:
        """The first items of every headline task."""
        return [item for task, num in self.chief for item in items_of(task, num)[: self.asked.watch_items]]

    def watch(self) -> list[Answer]:
        """The watched items, asked now."""
        return evaluate(self.model, self.watched_items(), encoder=self.encoder, control=self.ways[0])

    def watched_accuracy(self) -> float:
        """Of the answers that are there, those to the watched items."""
        wanted = {item.id for item in self.watched_items()}
        return accuracy(answer for answer in self.answers if answer.item in wanted)

    def first_token_ms(self) -> float:
        """Median time from a picture's file to the first new token, on this machine, beside the other workers."""
        item = items_of(*self.chief[0])[0]
        model = self.run.load_model(with_encoder=True)
        return time_to_first_token(model, item, repeats=3).first_token_ms


def _part_of(report: Callable[[float, str], None], place: int, of: int, way: str) -> Callable[[float], None]:
    words = "asking" if way in ("none", "text-only") else f"asking, {way}"
    return lambda part: report((place + part) / of, f"{words}: {100 * part:.0f}%")


def _by_task(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.family, []).append(answer)
    return found
