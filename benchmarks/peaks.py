"""The memory that this process holds, now and at most since a moment, in MiB. Linux alone.

The peak of `getrusage` is of the whole life of a process, loading of libraries and weights included, which hides what a
smaller piece of work takes.
"""

import ctypes
import gc
from pathlib import Path

_OWN = Path("/proc/self")


def held_mib() -> float:
    """What is held now."""
    return _status("VmRSS")


def peak_mib() -> float:
    """The most that was held since the peak was last forgotten."""
    return _status("VmHWM")


def forget_peak() -> float:
    """Begin a new peak, at what is held now, which is returned.

    What was freed but kept for later is given back first, else work that takes it up again would seem to need nothing.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    (_OWN / "clear_refs").write_text("5", encoding="ascii")
    return held_mib()


def _status(name: str) -> float:
    text = (_OWN / "status").read_text(encoding="ascii")
    return float(text.split(f"{name}:")[1].split()[0]) / 1024
