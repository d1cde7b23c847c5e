"""Single-threaded worker processes, side by side, each given one thing to do at a time.

A worker that dies is replaced; what it was doing is the caller's to give out again. An exception inside a piece of
work comes back as text and the worker goes on.
"""

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

Report = Callable[[float, str], None]
Work = Callable[[Any, Report], None]

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker says, or that it died. `part` is 0..1; `text` a few words, or what went wrong."""

    kind: Literal["progress", "done", "failed", "died"]
    worker: int
    part: float = 0.0
    text: str = ""


def _serve(connection: Connection, work: Work, log: Path | None) -> None:
    """A worker's life: take a piece of work, do it, say so."""
    if log is not None:
        _write_to(log)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if job is None:
            return
        try:
            work(job, lambda part, text: connection.send(("progress", part, text)))
            connection.send(("done", 1.0, ""))
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            return
        except Exception as error:
            traceback.print_exc()
            connection.send(("failed", 0.0, f"{type(error).__name__}: {error}"))


def _write_to(log: Path) -> None:
    """Send all that this process prints, libraries' warnings too, to the end of a file."""
    with log.open("ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside begin with one thread for every library that reads the environment."""
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Pool:
    """`size` workers that all run `work`; a context manager that leaves no process behind.

    What workers print goes to the end of the file `log`, or where this process prints.

    Raises:
        ValueError: the program came from standard input, which no worker could read again.
    """

    def __init__(self, size: int, work: Work, log: Path | None = None) -> None:
        assert size >= 1
        if getattr(sys.modules["__main__"], "__file__", None) == "<stdin>":
            raise ValueError(
                "A study's workers are processes that import the program again, and this one came from standard input. "
                'Put it in a file, with what it starts under `if __name__ == "__main__":`.'
            )
        self.size = size
        self.work = work
        self.log = log
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._workers.values():
            if kind is None:
                with contextlib.suppress(OSError):
                    connection.send(None)
            else:
                process.terminate()
        for process, connection in self._workers.values():
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        with _one_thread():
            process = self._context.Process(target=_serve, args=(theirs, self.work, self.log), daemon=True)
            process.start()
        theirs.close()
        self._workers[number] = (process, ours)

    def give(self, worker: int, job: object) -> None:
        """Hand a piece of work to an idle worker, which is started when it is first needed."""
        if worker not in self._workers:
            self._start(worker)
        with contextlib.suppress(BrokenPipeError):  # its death will be seen by `events`
            self._workers[worker][1].send(job)

    def pid(self, worker: int) -> int | None:
        """The process number of a worker; None before it is first needed."""
        return self._workers[worker][0].pid if worker in self._workers else None

    def events(self, timeout_s: float) -> list[Event]:
        """What workers said since the last call, waiting up to `timeout_s` for the first; the dead are replaced."""
        by_connection = {connection: number for number, (_, connection) in self._workers.items()}
        ready = wait(list(by_connection), timeout=timeout_s)
        events = []
        for connection in ready:
            assert isinstance(connection, Connection)
            number = by_connection[connection]
            try:
                while connection.poll():
                    kind, part, text = connection.recv()
                    events.append(Event(kind=kind, worker=number, part=part, text=text))
            except (EOFError, OSError):
                process = self._workers[number][0]
                process.join()
                connection.close()
                events.append(Event(kind="died", worker=number, text=f"exit code {process.exitcode}"))
                self._start(number)
        return events
