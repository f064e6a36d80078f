"""A step's command while it runs."""

from __future__ import annotations

import codecs
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from sage_trl.steps.relay import Relay


class RunningStep:
    """The process of one step; a context manager that returns once the process has ended.

    Args:
        name: the step's.
        command: what to run.
        environment: of the process.
        keeps_open: file descriptors that the process inherits.
        say: prints a line; the process writes to the terminal itself if None.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        keeps_open: Sequence[int],
        say: Callable[[str], None] | None,
    ) -> None:
        self.name = name
        self._start = time.monotonic()
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            # Python would keep back what it prints into a pipe, until it has 8 KiB of it.
            env=dict(environment) if say is None else {**environment, "PYTHONUNBUFFERED": "1"},
            pass_fds=keeps_open,
            stdout=None if say is None else subprocess.PIPE,
            stderr=None if say is None else subprocess.STDOUT,
        )
        self._follower: threading.Thread | None = None
        if say is not None and self._process.stdout is not None:
            relay = Relay(name, say)
            self._follower = threading.Thread(target=_follow, args=(self._process.stdout, relay), daemon=True)
            self._follower.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.wait()
        self._finish_output()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def exit_code(self) -> int | None:
        """As a shell gives it, 128 + N after signal N, once all it printed was said; None while the process runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._finish_output()
        return 128 - code if code < 0 else code

    def stop(self) -> None:
        """Ask the process to save what it has and to end."""
        self._process.terminate()

    def _finish_output(self) -> None:
        if self._follower is not None:
            # What the step itself has started may keep its output open for longer.
            self._follower.join(timeout=5)


def _follow(output: IO[bytes], relay: Relay) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a chunk may end within a character
    with output:
        while chunk := os.read(output.fileno(), 65536):
            relay.feed(decoder.decode(chunk))
    relay.feed(decoder.decode(b"", final=True))
    relay.close()
