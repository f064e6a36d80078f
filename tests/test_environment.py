"""What a run says of the code that it ran with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sage_trl.environment import describe_environment, git_state


def git(directory: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(directory), *who, *arguments], check=True, capture_output=True)


def test_the_commit_and_what_was_changed_since(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    assert git_state(package) is None
    git(tmp_path, "init")
    (tmp_path / "other").touch()
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-m", "without the package")
    assert git_state(package) is None  # a repository that merely lies around it
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "with it")
    clean = git_state(package)
    assert clean is not None and len(clean["commit"]) == 40 and clean["changes"] == "none"
    (package / "__init__.py").write_text("a = 2\n")
    changed = git_state(package)
    assert changed is not None and changed["commit"] == clean["commit"] and len(changed["changes"]) == 64
    (package / "__init__.py").write_text("a = 3\n")
    assert git_state(package) != changed


def test_no_environment_variable_is_told(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    told = describe_environment(processes=2)
    assert told["processes"] == 2 and "canary" not in json.dumps(told)
