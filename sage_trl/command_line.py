"""What all tools share: how they end, and what a user sees when they end badly."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from sage_trl.errors import SageError

# What the system refuses because of a path, its permissions or a full disk: for the user to mend.
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EEXIST", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
)


class _Terminated(BaseException):
    """SIGTERM arrived; a BaseException, so that no handler on the way takes it for a failure."""


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run a tool and exit with its code.

    A `SageError` becomes its message on stderr and its exit code, without a traceback; an interrupt becomes 130 and
    SIGTERM 143, after the open files were closed; so does what the system refuses because of a path, its permissions or
    a full disk, with exit code 2. Any other exception is a fault of ours and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main()
        sys.stdout.flush()
    except SageError as error:
        sys.stderr.write(f"error: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    except _Terminated:
        sys.stderr.write("terminated\n")
        code = 143
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); without this the interpreter complains again at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        name = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(
            f"error: {name}{error.strerror}\n  remedy: check the path, its permissions and the free space\n"
        )
        code = 2
    sys.exit(code)


def seed_number(text: str) -> int:
    """The type of `--seed` for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive_number(text: str) -> int:
    """The type of a count for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _terminate(_signal_number: int, _frame: FrameType | None) -> None:
    raise _Terminated
