"""Lets several commands that run at once share one terminal: whole lines, each under the name of its step."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

# A progress bar is redrawn several times a second; beside another step's lines each redrawing would be a line.
BAR_SECONDS = 10.0
# One bar below another moves the cursor up again, which would overwrite the lines of other steps.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Relay:
    """Passes on what a command prints, line by line.

    Args:
        name: put before each line.
        say: prints one line.
        clock: seconds, for tests.
    """

    def __init__(self, name: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._say = say
        self._clock = clock
        self._rest = ""
        self._next_bar = clock()

    def feed(self, text: str) -> None:
        """Take what was printed since the last call; a carriage return ends a state of a progress bar."""
        *lines, self._rest = re.split(r"(?<=[\r\n])", (self._rest + text).replace("\r\n", "\n"))
        for line in lines:
            if line.endswith("\r"):
                self._show_bar(line)
            else:
                self._show(line)

    def close(self) -> None:
        """Pass on a last line that was not ended."""
        self._show(self._rest)
        self._rest = ""

    def _show_bar(self, line: str) -> None:
        if self._clock() >= self._next_bar:
            self._show(line)
            self._next_bar = self._clock() + BAR_SECONDS

    def _show(self, line: str) -> None:
        line = _CONTROL_SEQUENCE.sub("", line)
        if line.strip():
            self._say(f"[{self._name}] {line.rstrip()}")
