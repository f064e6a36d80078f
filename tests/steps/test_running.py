"""What a step prints while it runs beside others."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sage_trl.steps.running import RunningStep


def run(program: str, say: Callable[[str], None]) -> int:
    with RunningStep("step", [sys.executable, "-c", program], os.environ, [], say) as step:
        while (code := step.exit_code()) is None:
            time.sleep(0.01)
        return code


def test_its_end_is_told_after_its_last_line() -> None:
    shown: list[str] = []

    def say(line: str) -> None:
        time.sleep(0.3)
        shown.append(line)

    with RunningStep("step", [sys.executable, "-c", "print('last')"], os.environ, [], say) as step:
        while step.exit_code() is None:
            time.sleep(0.01)
        assert shown == ["[step] last"]


def test_a_character_may_come_in_pieces() -> None:
    shown: list[str] = []
    program = "import os, time; os.write(1, b'\\xe2\\x94'); time.sleep(0.2); os.write(1, b'\\x81 1%\\n\\xe2')"

    assert run(program, shown.append) == 0

    assert shown == ["[step] \u2501 1%", "[step] \ufffd"]


def test_lines_come_while_the_step_runs(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = f"""
import pathlib, sys, time
print("loss 1.5")
deadline = time.monotonic() + 20
while not pathlib.Path({str(seen)!r}).exists():
    if time.monotonic() > deadline:
        sys.exit("nobody has seen it")
    time.sleep(0.01)
"""

    assert run(program, lambda _: seen.touch()) == 0
