"""Runs steps, each a command of one of the tools, so that no work is done twice however often it is stopped."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from rich.console import Console

from sage_trl.errors import DataError, LockedError
from sage_trl.steps.log import StepLog, StepState, step_key
from sage_trl.steps.running import RunningStep

STEPS_FILE = "steps.json"
LOCK_FILE = ".steps.lock"
ENVIRONMENT = {
    # Threads that wait by spinning made a step 30 times slower when another process had one of the two cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # glibc would give the memory of each large tensor back, and fetch and clear it anew: a fifth of a training's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
}
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique in a run.
        arguments: the tool's file name, then what it takes.
        produces: the directory that the step fills alone.
        resume: what to add to the command if it was stopped half way; None if the step cannot go on, and what it
            produced is removed first.
        needs: names of the steps whose outcome this one uses; None for all that come before it.
    """

    name: str
    arguments: tuple[str, ...]
    produces: Path | None = None
    resume: tuple[str, ...] | None = ()
    needs: tuple[str, ...] | None = None


class StepRunner:
    """Runs the steps that are not done yet; a context manager that holds the output's lock.

    Args:
        output: where `steps.json` is.
        tools: the directory of the tools.
        key: what decides the outcome of all steps beside their commands.
        replaces: whether a step that has changed may remove what it produced before; else that is an error.
        quiet: print errors only, and tell the tools so.
        jobs: how many steps may run at once; they share the cores.

    Raises:
        LockedError: on entering, if another process, or a step that outlived its run, still writes there.
    """

    def __init__(
        self, output: Path, tools: Path, *, key: str, replaces: bool, quiet: bool = False, jobs: int = 1
    ) -> None:
        self._output = output
        self._tools = tools
        self._key = key
        self._replaces = replaces
        self._quiet = quiet
        self._jobs = jobs
        self._log = StepLog(output / STEPS_FILE)
        self._keys: dict[str, str] = {}
        # Without emoji, for which rich takes the ":100:" of a warning in line 100.
        self._console = Console(quiet=quiet, soft_wrap=True, highlight=False, markup=False, emoji=False)

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
        """Run the steps, up to `jobs` at once, until one fails; returns its exit code, or 0.

        A step starts once those it needs are done, earlier steps first. When one fails, the others that run are asked
        to stop; they go on from there another time.

        Raises:
            DataError: a step has changed since it was done, and the runner replaces nothing.
        """
        waiting = self._with_needs(steps)
        running: list[RunningStep] = []
        with ExitStack() as stack:
            try:
                while waiting or running:
                    while len(running) < self._jobs and (ready := _ready(waiting, running)):
                        step = ready[0]
                        waiting.remove(step)
                        state = self.state(step)
                        if state == "done":
                            self.say(f"== {step.name}: done before")
                            continue
                        self._clear(step, state)
                        running.append(stack.enter_context(self._start(step, state)))
                    if running:
                        code = self._wait_for_one(running)
                        if code:
                            _stop(running)
                            return code
            except KeyboardInterrupt:
                # The terminal has sent the interrupt to the steps as well: they are saving what they have.
                raise
            except BaseException:
                _stop(running)
                raise
        return 0

    def _with_needs(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with all that they need by name."""
        before = list(self._keys)
        named = []
        for step in steps:
            named.append(replace(step, needs=tuple(before)) if step.needs is None else step)
            before.append(step.name)
        return named

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

    def _start(self, step: Step, state: StepState) -> RunningStep:
        self._log.note(step.name, self._keys[step.name], None)
        resume = step.resume if state == "stopped" and step.resume else ()
        quiet = ["--quiet"] if self._quiet else []
        # Not through `accelerate launch`, which turns every failure of the tool into exit code 1.
        command = [os.path.relpath(sys.executable), *self._arguments(step), *resume, *quiet]
        self.say(f"\n== {step.name}\n$ {shlex.join(command)}")
        environment = {**os.environ, **environment_of_steps(self._jobs)}
        # The command holds the lock too: if this process is killed, nobody starts the step a second time beside it.
        say = None if self._jobs == 1 or self._quiet else self.say
        return RunningStep(step.name, command, environment, [self._lock.fileno()], say)

    def _wait_for_one(self, running: list[RunningStep]) -> int:
        """Wait until one of the steps has ended, and take it off the list; returns its exit code."""
        while True:
            for one in running:
                code = one.exit_code()
                if code is not None:
                    running.remove(one)
                    self._note_end(one, code)
                    return code
            time.sleep(_POLL_SECONDS)

    def _note_end(self, ended: RunningStep, code: int) -> None:
        seconds = ended.seconds
        self.say(f"== {ended.name}: {minutes(seconds)}")
        if code == 0:
            self._log.note(ended.name, self._keys[ended.name], seconds)
        else:
            print_error(f"step {ended.name!r} failed with exit code {code}")


def environment_of_steps(jobs: int = 1) -> Mapping[str, str]:
    """What every step's environment holds when `jobs` run at once; the user's own settings of these win."""
    threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, available_cores() // jobs))}
    return {name: os.environ.get(name, value) for name, value in {**ENVIRONMENT, **threads}.items()}


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def minutes(seconds: float) -> str:
    """A duration for people."""
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def print_error(text: str) -> None:
    """As `run_tool` prints errors."""
    sys.stderr.write(f"error: {text}\n")


def _ready(waiting: Sequence[Step], running: Sequence[RunningStep]) -> list[Step]:
    unfinished = {step.name for step in waiting} | {step.name for step in running}
    return [step for step in waiting if step.needs is not None and not unfinished & set(step.needs)]


def _stop(running: Sequence[RunningStep]) -> None:
    for one in running:
        one.stop()
