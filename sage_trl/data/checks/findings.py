"""What a check has found: each finding says where, what, and how to mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sage_trl.errors import DataError, SageError

Severity = Literal["error", "warning"]
_LONGEST_VALUE = 80


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: the fault's name, the same for all of its kind: `image-missing`, `leakage`, ...
        severity: an `error` makes the dataset unusable or its results wrong; a `warning` may be meant.
        path: the file.
        line: its line from 1, if it has lines.
        field: the field, dotted (`questions.0.answers`).
        value: the field's value as text, cut to 80 characters.
        problem: what is wrong.
        remedy: what to do about it.
    """

    kind: str
    severity: Severity
    path: str
    line: int | None
    field: str | None
    value: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        field = "" if self.field is None else f"field {self.field!r}: "
        value = "" if self.value is None else f" (value: {self.value})"
        return f"{place}: {field}{self.problem}{value}\n  remedy: {self.remedy}"


def _finding(
    severity: Severity,
    kind: str,
    path: Path,
    problem: str,
    remedy: str,
    *,
    line: int | None = None,
    field: str | None = None,
    value: Any = None,
) -> Finding:
    return Finding(kind, severity, str(path), line, field, show(value), problem, remedy)


# A finding that makes the dataset unusable, and one that may be meant.
error = partial(_finding, "error")
warning = partial(_finding, "warning")


def from_exception(kind: str, fault: SageError, path: Path | str) -> Finding:
    """A finding from the error that a use of the data would raise; `path` stands in where the error names none."""
    if isinstance(fault, DataError) and fault.path is not None:
        return Finding(kind, "error", fault.path, fault.line, None, None, fault.problem, fault.remedy or "")
    problem, _, remedy = str(fault).partition("\n  remedy: ")
    remedy, _, _retry = remedy.partition("\n")
    return Finding(kind, "error", str(path), None, None, None, problem.removeprefix(f"{path}: "), remedy)


def show(value: Any) -> str | None:
    """A value as text of bounded length; None stays None."""
    if value is None:
        return None
    text = printable(value) if isinstance(value, str) else ascii(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def printable(text: str) -> str:
    """The text; escaped if it holds what a terminal would not show as it is, or not at all."""
    return text if text.isprintable() else ascii(text)


@dataclass(frozen=True)
class Report:
    """All findings of one check, errors first, each in the order of the files; `counts` says how much was looked at."""

    target: str
    findings: tuple[Finding, ...]
    counts: dict[str, int]

    @property
    def errors(self) -> list[Finding]:
        """The findings that make the target unusable."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that may be meant."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def kinds(self) -> Counter[tuple[Severity, str]]:
        """How many findings there are of each severity and kind."""
        return Counter((finding.severity, finding.kind) for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as `tools/check.py --json` writes it."""
        return {
            "target": self.target,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "counts": self.counts,
            "findings": [vars(finding) for finding in self.findings],
        }


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by file and line; what was found first stays first within a line."""
    return tuple(sorted(findings, key=lambda one: (one.severity, one.path, one.line or 0)))
