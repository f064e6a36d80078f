"""Runs the tools in processes that need not import torch, transformers and TRL first.

That import takes about ten seconds of a core, and the tests start hundreds of processes. Here each is forked from one
that has done it. It is a process of its own in all that a test can see: arguments, environment, directory, output, exit
code, signals. Tests that look at a process's start use `subprocess` as ever.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.warm_server import REPLY

REPOSITORY = Path(__file__).resolve().parent.parent
# What the libraries of `HUB_LIBRARIES`, and what all libraries, read while they are imported; and what no library does.
_HUB = ("HF_", "HUGGING", "TRANSFORMERS_", "ACCELERATE_", "DATASETS_", "TRL_", "XDG_", "HOME")
_ALL = ("OMP_", "MKL_", "TORCH", "PYTORCH_", "CUDA_", "LD_", "PYTHONWARNINGS", "PYTHONHASHSEED", "NUMEXPR_")
_LATER = ("HF_TOKEN",)
# For each of these there is a server that has `HUB_LIBRARIES`, if it is ever asked: this process's own, and one more.
_ENVIRONMENTS: list[Mapping[str, str]] = [os.environ]


def run_warm(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(command, capture_output=True, text=True)`, for this Python with a script or `-c`.

    Raises:
        ValueError: something else is to be run.
        subprocess.TimeoutExpired: it took too long, and was killed.
    """
    arguments = _arguments(command)
    environment = dict(os.environ if env is None else env)
    if not _agree(environment, os.environ, _ALL):
        return subprocess.run(
            command, env=environment, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
    with WarmProcess(arguments, environment, cwd) as process:
        code = process.wait(timeout)
        if code is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(command), timeout, process.output("stdout"), process.output("stderr"))
        return subprocess.CompletedProcess(list(command), code, process.output("stdout"), process.output("stderr"))


def start_warm(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> WarmProcess:
    """As `subprocess.Popen`, for this Python with a script or `-c`, to be used in a `with`.

    A signal reaches it as it would a process that was started cold: it is forked, and nothing stands in between.
    """
    return WarmProcess(_arguments(command), dict(os.environ if env is None else env), None)


def with_prelude(prelude: str, command: Sequence[str]) -> list[str]:
    """The command of a script, which runs some Python first."""
    executable, script, *rest = command
    code = f"{prelude}\nimport runpy, sys\nsys.argv[0] = {script!r}\nrunpy.run_path({script!r}, run_name='__main__')"
    return [executable, "-c", code, *rest]


def expect_many(environment: Mapping[str, str]) -> None:
    """Keep the libraries that read `HF_*` variables loaded for processes with this environment, too: one, the first."""
    if len(_ENVIRONMENTS) == 1:
        _ENVIRONMENTS.append(dict(environment))


def _arguments(command: Sequence[str | Path]) -> list[str]:
    executable, *arguments = map(str, command)
    if executable != sys.executable or (arguments[0].startswith("-") and arguments[0] != "-c"):
        raise ValueError(f"{command} is no script for {sys.executable}")
    return arguments


class WarmProcess:
    """A running copy of a warm process.

    Attributes:
        pid: its id.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: str | Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        outputs = {name: Path(self._folder.name, name) for name in ("stdout", "stderr")}
        for path in outputs.values():
            path.touch()
        request = {"arguments": list(arguments), "env": dict(environment), "cwd": str(cwd or Path.cwd())}
        request |= {name: str(path) for name, path in outputs.items()}
        plain, *hubs = _servers()
        number = _server_for(environment)
        self._server = plain if number is None else hubs[number]
        self.pid = self._server.start(request)
        self._end = os.pidfd_open(self.pid)
        self.code: int | None = None

    def wait(self, timeout: float) -> int | None:
        """The exit code as `subprocess` gives it; None after a time-out."""
        if self.code is None and select.select([self._end], [], [], timeout)[0]:
            self.code = self._server.exit_code(self.pid)
        return self.code

    def poll(self) -> int | None:
        """As of `subprocess.Popen`."""
        return self.wait(0)

    def output(self, name: str) -> str:
        """What it has written so far to `stdout` or `stderr`."""
        return Path(self._folder.name, name).read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        """As of `subprocess.Popen`."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.wait(60)

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        os.close(self._end)
        self._folder.cleanup()


class _Server:
    """One of the servers of `tests/warm_server.py`, at the other end of a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def start(self, request: Mapping[str, object]) -> int:
        """Fork a process; its id."""
        return self._ask(request)

    def exit_code(self, process: int) -> int:
        """The exit code, as `subprocess` gives it, of a process that ends by itself."""
        return self._ask({"wait": process})

    def _ask(self, request: Mapping[str, object]) -> int:
        self._end.sendall(json.dumps(request).encode() + b"\n")
        [number] = REPLY.unpack(self._end.recv(REPLY.size))
        return int(number)


def _server_for(environment: Mapping[str, str]) -> int | None:
    """Which of `_ENVIRONMENTS` is as this one to `HUB_LIBRARIES`, if any is."""
    return next((number for number, known in enumerate(_ENVIRONMENTS) if _agree(environment, known, _HUB)), None)


@cache
def _servers() -> list[_Server]:
    """The servers, the one without `HUB_LIBRARIES` first; they end when this process closes its ends."""
    pairs = [socket.socketpair() for _ in range(3)]
    theirs = [far.fileno() for _, far in pairs]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("warm_server.py")), *map(str, theirs)],
        pass_fds=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
    )
    atexit.register(process.wait)
    for near, far in pairs:
        far.close()
        atexit.register(near.close)
    return [_Server(near) for near, _ in pairs]


def _agree(environment: Mapping[str, str], other: Mapping[str, str], prefixes: tuple[str, ...]) -> bool:
    """Whether all variables of these names that libraries read while they are imported are the same."""
    return all(
        environment.get(name) == other.get(name)
        for name in {*environment, *other}
        if name.startswith(prefixes) and name not in _LATER
    )
