"""The loss of a process, or of the disk, as an error that says how to go on."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch._C import _error_if_any_worker_fails

from sage_trl.errors import DataError, MachineError

# What gloo and NCCL say when another process of the training is gone.
LOST_PROCESS = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed"),
    *("remote process exited", "communicator was aborted", "Timed out waiting"),
)


@contextmanager
def machine_faults() -> Iterator[None]:
    """Give the machine's faults in the body the words of ours.

    Raises:
        MachineError: in the place of what torch or the operating system says.
        DataError: that of a worker of the data loader, without the worker's traceback.
    """
    try:
        yield
    except DataError as error:
        if "in DataLoader worker" not in str(error).partition("\n")[0]:
            raise
        raise DataError(re.split(r"\n[\w.]+Error: ", str(error))[-1].rstrip()) from None
    except (RuntimeError, OSError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "the same command with --resume goes on from the newest whole checkpoint"
        if isinstance(error, ConnectionError):
            # Of a worker that was killed while it handed over a batch, torch may not know yet that it is dead.
            words = f"DataLoader worker is gone: {words}"
        if "DataLoader worker" in words:
            _hear_of_lost_worker()
            remedy = f"lower dataloader_num_workers if memory ran out; {remedy}"
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            remedy = f"free space, or make the directory writable; {remedy}"
        elif not any(word in str(error) for word in LOST_PROCESS):
            raise
        raise MachineError(f"{words}\n  remedy: {remedy}") from error


def _hear_of_lost_worker() -> None:
    """Let torch tell of a dead worker, which it does once: else it may do so, to nobody, when it ends the others."""
    with suppress(RuntimeError):
        # A process whose sockets are closed may be gone only a moment later.
        for _ in range(50):
            _error_if_any_worker_fails()
            time.sleep(0.01)
