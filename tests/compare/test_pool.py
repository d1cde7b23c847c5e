"""Workers: one thread each, exceptions come back as text, the dead are replaced."""

import os
import subprocess
import sys
from pathlib import Path

from pool_work import behave

from isthmus.compare.pool import Event, Pool


def until_end(pool: Pool, worker: int) -> Event:
    for _ in range(600):
        for event in pool.events(timeout_s=0.1):
            if event.worker == worker and event.kind != "progress":
                return event
    raise AssertionError("nothing came back")


def test_workers_report_fail_die_and_go_on(tmp_path: Path) -> None:
    threads = os.environ.get("OMP_NUM_THREADS")
    log = tmp_path / "workers.log"
    with Pool(2, behave, log) as pool:
        assert pool.pid(0) is None
        pool.give(0, ("fine", str(tmp_path)))
        first = pool.pid(0)
        assert until_end(pool, 0).kind == "done"
        for kind, ended in (("fine", "done"), ("raise", "failed"), ("fine", "done")):
            pool.give(0, (kind, str(tmp_path)))
            event = until_end(pool, 0)
            assert event.kind == ended
        assert pool.pid(0) == first
        pool.give(0, ("raise", str(tmp_path)))
        assert until_end(pool, 0).text == "ValueError: this cannot be done"
        pool.give(0, ("die", str(tmp_path)))
        died = until_end(pool, 0)
        assert (died.kind, died.text) == ("died", "exit code 9")
        assert pool.pid(0) != first
        pool.give(0, ("fine", str(tmp_path)))
        assert until_end(pool, 0).kind == "done"
        processes = [pool.pid(0)]
    lines = (tmp_path / "fine").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["1"] * 4
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert 'raise ValueError("this cannot be done")' in log.read_text(encoding="utf-8")
    for process in processes:
        assert process is not None
        assert not Path(f"/proc/{process}").exists()


def test_a_program_from_standard_input_is_refused() -> None:
    code = "from isthmus.compare.pool import Pool\nPool(1, print)\n"
    ran = subprocess.run([sys.executable, "-"], input=code, text=True, capture_output=True, check=False, timeout=120)
    assert ran.returncode == 1
    assert "this one came from standard input. Put it in a file" in ran.stderr
