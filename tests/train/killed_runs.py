"""Run by the kill test in a process of its own: trains in forked children and kills them with SIGKILL.

`killed_runs.py FOLDER SEED` trains once unbroken, then again and again under kills: some at uniformly random moments
of the run's time, some right before a chosen system call of a save. Every killed run is resumed, and killed again,
until it ends; the bytes of each must equal the unbroken run's. Prints one line a run, and `equal N` at the end.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tiny_stage import tiny_stage

from isthmus.train import checkpoint
from isthmus.train.loop import train
from isthmus.train.stage import Stage

SAVE_CALLS = ("fsync", "rename", "replace", "link", "unlink")


def stage_of(folder: Path) -> Stage:
    train_parts = ("connector", "llm.model.model.decoder.layers.1")
    return tiny_stage(
        folder, "opt", train=train_parts, steps=28, log_every=3, save_every=4, validate_every=6, micro_batch_size=3
    )


def content(run: Path) -> dict[str, bytes]:
    saved = checkpoint.latest(run)
    assert saved is not None
    files = {name: run / name for name in ("log.jsonl", "weights.safetensors", "best.safetensors", "finished.json")}
    files |= {name: saved.folder / name for name in ("weights.safetensors", "optimizer.safetensors", "state.json")}
    return {name: path.read_bytes() for name, path in files.items()}


def die_in_a_save(at: int) -> None:
    """Kill this process right before the `at`-th of the system calls that saves are made of."""
    counted = 0

    def watched(call: Callable) -> Callable:
        def counting(*args: object, **options: object) -> object:
            nonlocal counted
            counted += 1
            if counted == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return counting

    for name in SAVE_CALLS:
        setattr(os, name, watched(getattr(os, name)))
    checkpoint.save_file = watched(checkpoint.save_file)


def child(stage: Stage, run: Path, call: int | None) -> int:
    """Fork a process that trains (resuming), and return its id."""
    identity = os.fork()
    if identity:
        return identity
    code = 1
    try:
        if call is not None:
            die_in_a_save(call)
        train(stage, run, resume=True, progress=False)
        code = 0
    finally:
        os._exit(code)


def run_once(stage: Stage, run: Path, *, after: float | None = None, call: int | None = None) -> bool:
    """Train in a child, killed after so many seconds or before a call of a save; says whether it was killed."""
    identity = child(stage, run, call)
    if after is not None:
        end = time.monotonic() + after
        while time.monotonic() < end:
            done, status = os.waitpid(identity, os.WNOHANG)
            if done:
                assert status == 0, f"the run failed with {status}"
                return False
            time.sleep(0.002)
        os.kill(identity, signal.SIGKILL)
    _, status = os.waitpid(identity, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, f"the run failed with {status}"
    return False


def main(folder: Path, seed: int, random_kills: int = 10, save_kills: int = 10) -> None:
    os.environ["ISTHMUS_CACHE"] = str(folder / "cache")
    stage, draw = stage_of(folder), random.Random(seed)
    run_once(stage, folder / "first")
    begun = time.monotonic()
    run_once(stage, folder / "unbroken")
    seconds = time.monotonic() - begun
    wanted = content(folder / "unbroken")
    assert content(folder / "first") == wanted
    kills = {"random": 0, "save": 0}
    number = 0
    while kills["random"] < random_kills or kills["save"] < save_kills:
        number += 1
        run, killed = folder / f"killed-{number}", 0
        in_saves = kills["save"] < save_kills and number % 2 == 0
        while killed < 6:
            if in_saves:
                dead = run_once(stage, run, call=draw.randint(1, 60))
            else:
                dead = run_once(stage, run, after=draw.uniform(0, seconds))
            if not dead:
                break
            killed += 1
            kills["save" if in_saves else "random"] += 1
        run_once(stage, run)
        found = content(run)
        different = [name for name in wanted if found[name] != wanted[name]]
        assert not different, f"run {number} ({'in saves' if in_saves else 'random'}) differs in {different}"
        sys.stdout.write(f"run {number}: {killed} kills, equal\n")
    sys.stdout.write(f"equal {kills['random']} random {kills['save']} in saves\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
