"""Runs `tools/train.py` as two processes on the CPU (gloo), as a launcher would.

    python two_ranks.py PRELUDE ARGUMENTS...

PRELUDE is Python that each process runs first. This process is rank 0; the other is its child and ends with it.
Prints `rank 1: PID` at the start and `rank 1 ended with CODE` at the end.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Fork rank 1 and be rank 0; the exit code of rank 0."""
    prelude, *arguments = sys.argv[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(shared, GLOO_SOCKET_IFNAME="lo")
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    rank = 0 if child else 1
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    print(f"rank 1: {child}" if child else "", flush=True)
    code = train(prelude, arguments)
    if child == 0:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(f"rank 1 ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
    return code


def train(prelude: str, arguments: list[str]) -> int:
    """One rank."""
    exec(compile(prelude, "<prelude>", "exec"), {})
    sys.argv = [str(TRAIN), *arguments]
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 1


if __name__ == "__main__":
    sys.exit(main())
