"""Asks pip-audit whether a pinned version has a known vulnerability: .venv-audit/bin/python .ci/audit.py.

Exit codes: 0 every package was audited and none has a vulnerability without an exception, 1 one has, or an exception is
out of date, 2 pip-audit itself failed, 3 not every package could be audited, because no advisory database is reached
from here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXCEPTIONS = Path(__file__).with_name("audit_exceptions.txt")
PINNED = ROOT / "constraints.txt"
NOT_AUDITED = "NOT AUDITED: no advisory database answers for"
REMEDY = "Run `make audit` where one is reached."
# How pip-audit ends where the database does not answer; of most network errors with requests' own traceback.
NO_ANSWER = re.compile(r"requests\.exceptions\.|ServiceError|your network may be blocking")


def main() -> int:
    """Audit and print."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINNED), "--no-deps", "--disable-pip"]
    found = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    try:
        report = json.loads(found.stdout)
    except json.JSONDecodeError:
        code, lines = failure(found.stderr)
    else:
        code, lines = verdict(report, read_exceptions(EXCEPTIONS))
    sys.stdout.write("\n".join(lines) + "\n")
    return code


def read_exceptions(path: Path) -> dict[str, str]:
    """Vulnerability -> the reason why it does not concern us.

    Raises:
        ValueError: a line without a reason.
    """
    exceptions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, reason = line.partition(" ")
        if not name or name.startswith("#"):
            continue
        if not reason.strip():
            raise ValueError(f"{path}:{number}: {name} has no reason\n  remedy: write why it does not concern us")
        exceptions[name] = reason.strip()
    return exceptions


def failure(written: str) -> tuple[int, list[str]]:
    """Exit code and what to print where pip-audit gives no report.

    Args:
        written: what it wrote to stderr.
    """
    end = written.strip()[-1000:]
    if NO_ANSWER.search(written):
        return 3, [f"{NOT_AUDITED} all packages. {REMEDY}", end]
    return 2, ["NOT AUDITED: pip-audit failed, and not for want of an advisory database.", end]


def verdict(report: Mapping[str, Any], exceptions: Mapping[str, str]) -> tuple[int, list[str]]:
    """Exit code and what to print.

    Args:
        report: pip-audit's, in its JSON format.
        exceptions: vulnerability -> reason.
    """
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines, seen = [], set()
    for package in packages:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            seen |= names
            if not names & exceptions.keys():
                fixed = ", ".join(found.get("fix_versions", ())) or "none"
                lines.append(f"{package['name']} {package['version']}: {found['id']}; fixed in: {fixed}")
    if not skipped and packages:
        stale = sorted(exceptions.keys() - seen)
        lines += [f"{name} is no longer reported\n  remedy: take it out of {EXCEPTIONS.name}" for name in stale]
    if lines:
        return 1, lines
    if not packages:
        return 2, ["NOT AUDITED: pip-audit reports on no package."]
    if skipped:
        names = f" ({', '.join(skipped)})" if len(skipped) < len(packages) else ""
        return 3, [f"{NOT_AUDITED} {len(skipped)} of {len(packages)} packages{names}. {REMEDY}"]
    return 0, [f"audited: {len(packages)} packages, {len(exceptions)} exceptions"]


if __name__ == "__main__":
    sys.exit(main())
