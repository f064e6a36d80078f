"""A report as a table."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sage_trl.data.checks.findings import Finding, Report


def print_report(report: Report, show: int, console: Console) -> None:
    """Print how many findings of each kind there are, and the first of each.

    Args:
        report: what was found.
        show: findings of a kind to print at most.
        console: where to.
    """
    looked_at = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.counts.items())
    if not report.findings:
        console.print(escape(f"{report.target}: no fault found ({looked_at})"))
        return
    table = Table("severity", "kind", "number", title=escape(report.target))
    kinds = sorted(report.kinds().items())
    for (severity, kind), number in kinds:
        table.add_row(severity, kind, f"{number:,}")
    console.print(table)
    for _, members in groupby(sorted(report.findings, key=_kind), key=_kind):
        findings = list(members)
        for finding in findings[:show]:
            console.print(escape(f"{finding.severity}: {finding.kind}: {finding}"))
        if len(findings) > show:
            first = findings[0]
            console.print(escape(f"... and {len(findings) - show:,} more of {first.kind}: --show N, or --json for all"))
    verdict = f"{len(report.errors)} errors, {len(report.warnings)} warnings"
    console.print(escape(f"{report.target}: {verdict} ({looked_at})"))


def _kind(finding: Finding) -> tuple[str, str]:
    return finding.severity, finding.kind
