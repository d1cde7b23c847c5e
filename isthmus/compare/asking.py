"""Everything a judged run is asked: its tasks, the blind controls, the watched items before the last fifth."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from isthmus.compare.jobs import Asked
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


@lru_cache(maxsize=64)
def items_of(task: str, num: int) -> tuple[Sample, ...]:
    """A benchmark's test items, the same for every arm and seed; made once in a process."""
    return tuple(BENCHMARKS[task].items("test", num))


class Asking:
    """One finished run and its questions; `encoder` is None where the run trained its own.

    Answers that are in `folder` already are read, not asked for again.
    """

    def __init__(self, run: Run, asked: Asked, encoder: CachedEncoder | None, folder: Path) -> None:
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
            self._model = self.run.load_model(with_encoder=self.cached is None)
        return self._model

    @property
    def encoder(self) -> CachedEncoder | OwnEncoder:
        """What sees the pictures."""
        return OwnEncoder(self.model) if self.cached is None else self.cached

    @property
    def controls(self) -> tuple[Control, ...]:
        """What this run is shown, its own kind of picture first."""
        return ("text-only",) if self.asked.blind else ("none", "mean-image", "shuffled")

    @property
    def _chief(self) -> list[tuple[str, int]]:
        return [(task, num) for task, num in self.asked.tasks if task in self.asked.headline]

    def ask(self, report: Callable[[float, str], None]) -> None:
        """Ask everything; `report` gets the part done."""
        controls = self.controls
        for place, control in enumerate(controls):
            self._ask(control, _part_of(report, place, len(controls), control))

    def _ask(self, control: Control, report: Callable[[float], None]) -> None:
        path = self.folder / f"{control}.jsonl"
        if not path.is_file():
            write_answers(self._fresh(control, report), path)
        self._answers[control] = read_answers(path)

    def _fresh(self, control: Control, report: Callable[[float], None]) -> list[Answer]:
        plain: list[Sample] = []
        choices: list[Sample] = []
        seeing = control in ("none", "text-only")
        for task, num in self.asked.tasks:
            if not seeing and task not in self.asked.headline:
                continue
            items = items_of(task, num)[: self.asked.control_items if control == "shuffled" else num]
            (choices if BENCHMARKS[task].form == "retrieval" else plain).extend(items)
        answers: list[Answer] = []
        if plain:
            answers += evaluate(
                self.model, plain, encoder=self.encoder, control=control,
                on_progress=lambda done, total: report(done / total),
            )  # fmt: skip
        if choices:
            answers += retrieve(self.model, choices, encoder=self.encoder, control=control)
        return answers

    def scores(self) -> dict[str, dict[str, float]]:
        """Accuracy by control and task."""
        return {control: {task: accuracy(found) for task, found in _by_task(answers).items()}
                for control, answers in self._answers.items()}  # fmt: skip

    def counts(self) -> dict[str, dict[str, int]]:
        """Questions behind each of `scores`."""
        return {control: {task: len(found) for task, found in _by_task(answers).items()}
                for control, answers in self._answers.items()}  # fmt: skip

    def watched_items(self) -> list[Sample]:
        """The first items of every headline task."""
        return [item for task, num in self._chief for item in items_of(task, num)[: self.asked.watch_items]]

    def watched_accuracy(self) -> float:
        """Accuracy on the watched items after training, from the answers that are there."""
        wanted = {item.id for item in self.watched_items()}
        return accuracy(answer for answer in self._answers[self.controls[0]] if answer.item in wanted)

    def early_accuracy(self, weights: Path) -> float | None:
        """Accuracy on the watched items with the weights as they were before the last fifth; None without them."""
        path = self.folder / f"{EARLY}.jsonl"
        if not path.is_file():
            if not weights.is_file() or not self.asked.watch_items:
                return None
            load_trained(self.model, load_safetensors(weights), source=str(weights), with_encoder=self.cached is None)
            control = self.controls[0]
            write_answers(evaluate(self.model, self.watched_items(), encoder=self.encoder, control=control), path)
            self._model = None
        return accuracy(read_answers(path))

    def first_token_ms(self) -> float:
        """Median time from a picture's file to the first new token, on this machine, beside the other workers."""
        item = items_of(*self._chief[0])[0]
        model = self.run.load_model(with_encoder=True)
        return time_to_first_token(model, item, repeats=3).first_token_ms


def _part_of(report: Callable[[float, str], None], place: int, of: int, control: str) -> Callable[[float], None]:
    words = "asking" if control in ("none", "text-only") else f"asking, {control} control"
    return lambda part: report((place + part) / of, f"{words}: {100 * part:.0f}%")


def _by_task(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.family, []).append(answer)
    return found
