"""InternVL 1.0: every output and gradient of the official code, in one process and in two."""

from pathlib import Path

from internvl_g import build, features, retrieval, stage2
from oracle_files import Oracle, oracles, part
from processes import run_processes


@oracles("internvl_g_features")
def test_features(name: str) -> None:
    with Oracle(name) as oracle:
        for kind in ("c", "g"):
            outputs, gradients = features(build(oracle), oracle.below("inputs/"), kind)
            oracle.check_all(f"outputs/{kind}/", outputs.get)
            oracle.check_gradients(gradients, f"grads/{kind}/")


@oracles("internvl_g_stage2")
def test_stage2(name: str) -> None:
    with Oracle(name) as oracle:
        outputs, gradients = stage2(build(oracle), oracle.below("inputs/"), oracle.config["label_smoothing"])
        oracle.check_all("outputs/", outputs.get)
        oracle.check_gradients(gradients)


@oracles("internvl_g_retrieval")
def test_retrieval(name: str) -> None:
    with Oracle(name) as oracle:
        outputs, gradients = retrieval(build(oracle), oracle.below("inputs/"))
        oracle.check_all("outputs/", outputs.get)
        oracle.check_gradients(gradients)


@oracles("internvl_g_stage2_two_ranks")
def test_two_processes(name: str, tmp_path: Path) -> None:
    with Oracle(name) as oracle:
        ranks = sorted({key.split("/")[0] for key in oracle.tensors if key.startswith("rank")})
        for rank, made in enumerate(run_processes("internvl_g.py", name, len(ranks), tmp_path)):
            for kind in ("outputs/", "grads/"):
                oracle.check_all(f"rank{rank}/{kind}", part(made, kind).get)
