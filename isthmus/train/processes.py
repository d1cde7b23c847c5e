"""The end of work in several processes."""

import gc

from torch import distributed


def leave_group() -> None:
    """Wait for the other processes, then leave their group; nothing where there is one process.

    Threads of a group that outlive the work end a process with an abort. They live as long as a tensor that was cut
    over the processes, or a cycle of modules that holds one, names the group.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    distributed.barrier()
    gc.collect()
    distributed.destroy_process_group()
