"""Freed memory stays with the process during a run, and goes back to the system after it."""

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from isthmus.train.freed_memory import kept_memory

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
BLOCKS, MIB = 10, 2**20
PAGES = BLOCKS * 20 * MIB // 4096


def faults_of_a_step() -> int:
    """Pages that were given to the process while 200 MiB are filled, block by block, and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(20 * MIB, dtype=torch.uint8).fill_(1) for _ in range(BLOCKS)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_later_steps_take_no_new_pages_and_afterwards_they_are_given_back() -> None:
    with kept_memory():
        for _ in range(3):
            faults_of_a_step()
        assert faults_of_a_step() < PAGES // 10
        held = held_pages()
    assert held_pages() < held - PAGES // 2


def test_an_error_within_it_comes_out() -> None:
    with pytest.raises(ValueError, match="no room"), kept_memory():
        raise ValueError("no room")
