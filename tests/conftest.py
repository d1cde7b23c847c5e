"""Every test runs with shapes and types checked: jaxtyping annotations are enforced by beartype as modules load."""

import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jaxtyping
import pytest
from jaxtyping import install_import_hook
from oracle_files import TALLY, summary

install_import_hook("isthmus", "beartype.beartype")


@pytest.fixture
def unannotated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations are not enforced, as where the library is used: what it refuses is then said by itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands over what it compared."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["oracles"] = TALLY


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The first process takes it over."""
    TALLY.update(getattr(node, "workeroutput", {}).get("oracles", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many oracle files and tensors were compared, which were not, and what was left out for a reason."""
    if TALLY:
        for line in summary():
            terminalreporter.write_line(line)
