"""Runs steps, each a command of one of the tools, so that no work is done twice however often it is stopped."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console

from sage_trl.errors import DataError, LockedError
from sage_trl.steps.log import StepLog, StepState, step_key

STEPS_FILE = "steps.json"
LOCK_FILE = ".steps.lock"
# Threads that wait by spinning made a step 30 times slower when another process had one of the two cores.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique in a run.
        arguments: the tool's file name, then what it takes.
        produces: the directory that the step fills alone.
        resume: what to add to the command if it was stopped half way; None if the step cannot go on, and what it
            produced is removed first.
        needs: names of the steps whose outcome this one uses; None for all that were run before it.
    """

    name: str
    arguments: tuple[str, ...]
    produces: Path | None = None
    resume: tuple[str, ...] | None = ()
    needs: tuple[str, ...] | None = None


class StepRunner:
    """Runs the steps that are not done yet, one after the other; a context manager that holds the output's lock.

    Args:
        output: where `steps.json` is.
        tools: the directory of the tools.
        key: what decides the outcome of all steps beside their commands.
        replaces: whether a step that has changed may remove what it produced before; else that is an error.
        quiet: print errors only, and tell the tools so.

    Raises:
        LockedError: on entering, if another process, or a step that outlived its run, still writes there.
    """

    def __init__(self, output: Path, tools: Path, *, key: str, replaces: bool, quiet: bool = False) -> None:
        self._output = output
        self._tools = tools
        self._key = key
        self._replaces = replaces
        self._quiet = quiet
        self._log = StepLog(output / STEPS_FILE)
        self._keys: dict[str, str] = {}
        self._console = Console(quiet=quiet, soft_wrap=True, highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._output.mkdir(parents=True, exist_ok=True)
        self._lock = (self._output / LOCK_FILE).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            problem = f"{self._output}: another process is at work on these steps, or a step of a killed run still is"
            raise LockedError(f"{problem}\n  remedy: wait until it is done, or write elsewhere") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def say(self, text: str) -> None:
        """Print at once, unless quiet."""
        self._console.print(text)

    def state(self, step: Step) -> StepState:
        """How far a step is, and remember its key for the steps that need it."""
        needed = self._keys if step.needs is None else {name: self._keys[name] for name in step.needs}
        self._keys[step.name] = step_key(self._arguments(step), [self._key, *needed.values()])
        return self._log.state(step.name, self._keys[step.name])

    def command(self, step: Step) -> str:
        """The command as it can be typed."""
        return shlex.join([os.path.relpath(sys.executable), *self._arguments(step)])

    def run(self, steps: Sequence[Step]) -> int:
        """Run the steps up to the first that fails; returns its exit code, or 0.

        Raises:
            DataError: a step has changed since it was done, and the runner replaces nothing.
        """
        for step in steps:
            state = self.state(step)
            if state == "done":
                self.say(f"== {step.name}: done before")
                continue
            self._clear(step, state)
            resume = step.resume if state == "stopped" and step.resume else ()
            code = self._run_step(step, (*self._arguments(step), *resume))
            if code:
                print_error(f"step {step.name!r} failed with exit code {code}")
                return code
        return 0

    def _arguments(self, step: Step) -> tuple[str, ...]:
        return (str(self._tools / step.arguments[0]), *step.arguments[1:])

    def _clear(self, step: Step, state: StepState) -> None:
        # Only what an earlier run has made is removed; anything else there is for the tool to refuse.
        if step.produces is None or not step.produces.exists() or not self._log.is_known(step.name):
            return
        if state == "stopped" and step.resume is not None:
            return
        if state == "new" and not self._replaces:
            problem = f"{step.produces} was made by another command, recipe or data than step {step.name!r} now has"
            raise DataError(f"{problem}\n  remedy: write elsewhere, or remove it to have the step done again")
        self.say(f"\n== {step.name}: removing {step.produces}, made by an earlier run")
        shutil.rmtree(step.produces)

    def _run_step(self, step: Step, arguments: Sequence[str]) -> int:
        self._log.note(step.name, self._keys[step.name], None)
        # Not through `accelerate launch`, which turns every failure of the tool into exit code 1.
        command = [os.path.relpath(sys.executable), *arguments, *(["--quiet"] if self._quiet else [])]
        self.say(f"\n== {step.name}\n$ {shlex.join(command)}")
        start = time.monotonic()
        code = self._call(command)
        seconds = time.monotonic() - start
        self.say(f"== {step.name}: {minutes(seconds)}")
        if code == 0:
            self._log.note(step.name, self._keys[step.name], seconds)
        return code

    def _call(self, command: Sequence[str]) -> int:
        # The command holds the lock too: if this process is killed, nobody starts the step a second time beside it.
        environment = {**os.environ, **environment_of_steps()}
        with subprocess.Popen(command, env=environment, pass_fds=[self._lock.fileno()]) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                # The terminal has sent the interrupt to the step as well: it is saving what it has.
                process.wait()
                raise
            except BaseException:
                process.terminate()
                raise
        return code if code >= 0 else 128 - code


def environment_of_steps() -> dict[str, str]:
    """What every step's environment holds; the user's own settings of these win."""
    return {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}


def minutes(seconds: float) -> str:
    """A duration for people."""
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def print_error(text: str) -> None:
    """As `run_tool` prints errors."""
    sys.stderr.write(f"error: {text}\n")
