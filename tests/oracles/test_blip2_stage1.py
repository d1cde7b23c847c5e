"""BLIP-2's first stage: every output and gradient of the official code, in one process and in two."""

from pathlib import Path

from blip2_stage1 import build, run
from oracle_files import Oracle, oracles, part
from processes import run_processes

TIED = "Qformer.cls.predictions.decoder."


def check(oracle: Oracle, prefix: str = "") -> None:
    """Both forms of the gradient, each from a fresh model."""
    outputs, gradients = run(build(oracle), oracle.below(f"{prefix}inputs/"), "local")
    oracle.check_all(f"{prefix}outputs/", outputs.get)
    oracle.check_gradients(gradients, f"{prefix}grads/")
    _, attached = run(build(oracle), oracle.below(f"{prefix}inputs/"), "both")
    oracle.check_gradients(attached, f"{prefix}grads_attached/")


@oracles("blip2_stage1")
def test_one_process(name: str) -> None:
    with Oracle(name) as oracle:
        check(oracle)


@oracles("blip2_stage1_image_id")
def test_several_captions_an_image(name: str) -> None:
    with Oracle(name) as oracle:
        check(oracle)


@oracles("blip2_stage1_two_ranks")
def test_two_processes(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        ranks = sorted({key.split("/")[0] for key in oracle.tensors if key.startswith("rank")})
        for rank, made in enumerate(run_processes("blip2_stage1.py", name, len(ranks), tmp_path)):
            for kind in ("outputs/", "grads/"):
                oracle.check_all(f"rank{rank}/{kind}", part(made, kind).get)
