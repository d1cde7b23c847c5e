"""The training loop: from a stage to a run folder."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object

from isthmus.measure.doctor import judge
from isthmus.runs import BEST_FILE, FINISHED_FILE, STAGE_FILE, Run
from isthmus.train import checkpoint, sharding
from isthmus.train.freed_memory import kept_memory
from isthmus.train.journal import Journal
from isthmus.train.objectives.base import NotFiniteError
from isthmus.train.options import AS_IT_IS, RunOptions
from isthmus.train.progress import Progress, ProgressDisplay
from isthmus.train.setup import Setup, clear_folder, open_folder, set_up
from isthmus.train.stage import Stage
from isthmus.train.steps import Steps, check_finite
from isthmus.train.validate import Best, validate
from isthmus.train.watch import facts_of


def train(
    stage: Stage,
    folder: Path,
    *,
    resume: bool = False,
    start: Path | None = None,
    progress: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    options: RunOptions = AS_IT_IS,
) -> Run:
    """Train a stage into a run folder and return the finished run.

    `start` is the run folder that `stage.start_from` resolves to; without it the latest finished run is found.
    `progress` says what learns and draws a bar (plain lines without a terminal); `on_progress` is called about once a
    second. Two runs of one stage are equal bit for bit, and so is a run that was killed at any moment and resumed.

    Raises:
        ValueError: the folder holds another run, or a run and not `resume`; `start` is missing or does not fit; a
            loss is not finite; `shard` with one process or no language model; `pack` with a model that cannot. What is
            refused before its first step leaves no run behind.
        OSError: no space is left to save in; the save before stays intact.
    """
    # Where only some objectives of alignment are asked for, heads and streams of the others get no gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=stage.model.llm is None)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[parallel])
    if options.shard:
        sharding.check(stage, accelerator.num_processes)
    with (
        torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []),
        ProgressDisplay(show=progress and accelerator.is_main_process, call=on_progress) as display,
        kept_memory(),
    ):
        begun = (folder / STAGE_FILE).is_file()
        if open_folder(stage, folder, resume=resume, start=start, accelerator=accelerator):
            try:
                setup = set_up(stage, folder, accelerator=accelerator, display=display, options=options)
            except ValueError:
                if not begun and accelerator.is_main_process:
                    clear_folder(folder)
                raise
            display.tell(setup.what_learns())
            Training(setup, folder, display=display, tensorboard=options.tensorboard).run()
    accelerator.wait_for_everyone()
    return Run(folder)


class Training:
    """One run from its newest save to its end."""

    def __init__(self, setup: Setup, folder: Path, *, display: ProgressDisplay, tensorboard: bool) -> None:
        self.setup, self.stage, self.folder, self.display = setup, setup.stage, folder, display
        self.main = setup.accelerator.is_main_process
        saved = setup.saved
        state = {} if saved is None else saved.state
        self.step = 0 if saved is None else saved.step
        self.best: Best | None = state.get("best")
        self.validation_loss: float | None = state.get("validation_loss")
        self.skipped: set[str] = set(state.get("skipped", ()))
        self.steps = Steps(setup, display=display, first=self.step, window=state.get("window"))
        self.journal: Journal | None = None
        if self.main:
            self.journal = Journal(folder, log_bytes=state.get("log_bytes", 0), step=self.step, tensorboard=tensorboard)
        self.facts = facts_of(self.stage, setup.num_steps)
        self.history = Run(folder).log() if self.main else []

    def run(self) -> None:
        """Train to the last step, then mark the run finished."""
        wall, busy = time.perf_counter(), time.process_time()
        try:
            if self.step == 0:
                self._log(0, {"parameters": self.setup.report.parameters, "trainable": self.setup.report.trainable})
            while self.step < self.setup.num_steps:
                self.steps.take(self.step)
                self.step += 1
                self._after_step()
            self._finish()
            spent = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - busy}
            if self.journal is not None:
                self.journal.time(self.step, {"event": "finished", **spent})
        except NotFiniteError as error:
            self._log(self.step, {"broke_down": error.what, "feature_max": self.steps.feature_max()})
            raise
        finally:
            if self.journal is not None:
                self.journal.close()

    def _after_step(self) -> None:
        last = self.step == self.setup.num_steps
        if last or self.step % self.stage.log_every == 0:
            self._log_window()
        every = self.stage.validate_every
        if self.stage.validation and (last or (every and self.step % every == 0)):
            self._validate()
        if last or self.step % self.stage.save_every == 0:
            self._save()

    def _log_window(self) -> None:
        values = self.steps.window_values(self.step)
        told: dict[str, int | float | str | None] = {**values, **self.steps.signs}
        if self.steps.signs:
            told["doctor"] = judge(self.facts, [*self.history, {"step": self.step, **told}]).word
        self.steps.signs = {}
        self._log(self.step, told)
        check_finite({name: value for name, value in values.items() if isinstance(value, float)})
        if self.journal is not None:
            self.journal.time(self.step, self.steps.rates())

    def _validate(self) -> None:
        loss = validate(self.setup, self.display)
        self.validation_loss = loss
        better = self.best is None or loss < self.best["loss"]
        self._log(self.step, {"validation_loss": loss, "best": better})
        if better:
            self.best = Best(step=self.step, loss=loss)
            kept = self.setup.kept_tensors()
            if self.main:
                checkpoint.write_tensors_whole(self.folder / BEST_FILE, kept)
        self.steps.skip_time()

    def _save(self) -> None:
        window = self.steps.window_state()
        self.skipped.update(gather_object(self.setup.feed.skipped()))
        trained, optimizer = self.setup.kept_tensors(), self.setup.optimizer_tensors()
        if self.main:
            assert self.journal is not None
            state = {
                "log_bytes": self.journal.sync(),
                "window": window,
                "best": self.best,
                "validation_loss": self.validation_loss,
                "skipped": sorted(self.skipped),
            }
            checkpoint.save(self.folder, self.step, trained=trained, optimizer=optimizer, state=state)
        self.setup.accelerator.wait_for_everyone()
        self.steps.skip_time()

    def _finish(self) -> None:
        if self.main:
            checkpoint.publish_weights(self.folder, self.step)
            result: dict[str, object] = {"steps": self.step, "validation_loss": self.validation_loss}
            result |= {"best": self.best, "skipped": sorted(self.skipped)}
            checkpoint.write_whole(self.folder / FINISHED_FILE, json.dumps(result).encode())

    def _log(self, step: int, values: dict[str, int | float | str | None]) -> None:
        if self.journal is not None:
            self.journal.log(step, values)
            self.history.append({"step": step, **values})
