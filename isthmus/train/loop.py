"""The training loop: one page from a stage to a run folder."""

from collections.abc import Callable
from pathlib import Path

from isthmus.runs import Run
from isthmus.train.progress import Progress
from isthmus.train.stage import Stage


def train(
    stage: Stage,
    folder: Path,
    *,
    resume: bool = False,
    start: Path | None = None,
    progress: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
) -> Run:
    """Train a stage into a run folder and return the finished run.

    `start` is the run folder that `stage.start_from` resolves to. `progress` draws a bar (plain lines without a
    terminal); `on_progress` is called about once a second. Two runs of one stage are equal bit for bit, and so is a
    run that was killed and resumed.

    Raises:
        ValueError: the folder holds another run, or a run and not `resume`; `start` is missing or does not fit.
        OSError: no space is left to save in; the save before stays intact.
    """
    raise AssertionError((stage, folder, resume, start, progress, on_progress, tensorboard))
