"""What a result depends on beside recipe and data: versions, the state of the code, the machine."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
DISTRIBUTION = "sage-trl"
PACKAGE = Path(__file__).resolve().parent


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide a result."""
    found = {"python": platform.python_version()}
    for name in (DISTRIBUTION, *LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state(package: Path = PACKAGE) -> dict[str, str] | None:
    """The commit that the code is at, and the SHA-256 of what was changed since; None if it is in no repository.

    Args:
        package: a directory of code. A repository that merely lies around it, as around an environment, is none.
    """
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    changes = _git(package, "diff", "HEAD", "--", ".") or b""
    return {
        "commit": commit.decode().strip(),
        "changes": hashlib.sha256(changes).hexdigest() if changes else "none",
    }


def describe_environment(**facts: Any) -> dict[str, Any]:
    """The content of a run's `environment.json`: no variable of the environment is in it.

    Args:
        facts: what else to tell, such as the number of processes.
    """
    machine = {"system": platform.platform(), "machine": platform.machine(), "host": platform.node()}
    return {"versions": versions(), "git": git_state(), **machine, **facts}


def _git(directory: Path, *arguments: str) -> bytes | None:
    """The output of git, or None if there is no git, or it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
