"""Exceptions a user can act on; each carries the exit code of the tool that meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

INCOMPLETE = 3
"""The exit code of a tool that is done, but for what is in quarantine or got no answer."""


class SageError(Exception):
    """A mistake or a state that the user can mend. Tools print it without a traceback and exit with `exit_code`."""

    exit_code = 2


class DataError(SageError):
    """A dataset, score or fact file that cannot be used as it is. Names file, line or key, value and remedy.

    Attributes:
        path, line, remedy: the parts of the message, where it was made by `at`.
        problem: the same, else the whole message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: str | None = None
        self.line: int | None = None
        self.problem = message
        self.remedy: str | None = None

    @classmethod
    def at(cls, path: Path | str, line: int | None, problem: str, remedy: str) -> Self:
        """An error with the parts of its message."""
        place = str(path) if line is None else f"{path}:{line}"
        error = cls(f"{place}: {problem}\n  remedy: {remedy}")
        error.path, error.line, error.problem, error.remedy = str(path), line, problem, remedy
        return error


class RecipeError(SageError):
    """A recipe or a command line that cannot be used as it is."""


class LockedError(SageError):
    """Another process writes to the same file."""

    exit_code = 6


class StoppedError(SageError):
    """A signal arrived and everything was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class DivergedError(SageError):
    """Training met a loss or a gradient that is not finite."""

    exit_code = 7


class CredentialsError(SageError):
    """A service does not accept who we are, or an account's quota is used up."""

    exit_code = 5


class HubError(SageError):
    """The hub failed or refused; nothing was published, and the same command may be given again."""

    exit_code = 8


class MachineError(SageError):
    """The machine failed, not the recipe: a full or read-only disk, a process that was killed.

    What was saved before is whole, and the same command with `--resume` goes on from there.
    """

    exit_code = 9
