"""Finds every fault of a dataset before training meets the first."""

from __future__ import annotations

from pathlib import Path

from sage_trl.data.checks import relations
from sage_trl.data.checks.findings import Finding, Report, error, in_order
from sage_trl.data.checks.near_duplicates import near_duplicates
from sage_trl.data.checks.pictures import Progress, read_pictures
from sage_trl.data.checks.rows import GroupNote, read_groups
from sage_trl.data.checks.sidecars import fact_faults, score_faults
from sage_trl.data.checks.whole import balance_faults, info_faults, read_info, shape_faults
from sage_trl.data.dataset import ROWS_FILE, SCORES_FILE
from sage_trl.data.fact_sets import FACTS_FILE


def _no_progress(_what: str, _done: int, _total: int | None) -> None:
    pass


def check_dataset(directory: Path | str) -> list[Finding]:
    """The faults that make a dataset unusable; none for one that can be used. See `examine_dataset`."""
    return examine_dataset(directory).errors


def examine_dataset(
    directory: Path | str,
    progress: Progress = _no_progress,
    *,
    facts: Path | None = None,
    scores: Path | None = None,
) -> Report:
    """Every fault of a dataset, whatever else is wrong with it. Images are decoded on all cores.

    Args:
        directory: the dataset's directory.
        progress: called with what is being checked, how many are done, and of how many.
        facts: `facts.jsonl`, which must be there; None checks the one in the dataset, if there is one.
        scores: `scores.jsonl`, likewise.
    """
    root = Path(directory)
    path = root / ROWS_FILE
    if not path.is_file():
        missing = error("dataset", path, "no such file", "check the path, or build a dataset first")
        return Report(str(root), (missing,), {})
    findings: list[Finding] = []
    info, image_root = read_info(root, findings)
    groups: list[GroupNote] = []
    for group in read_groups(path, findings):
        groups.append(group)
        progress("groups", len(groups), None)
    if not groups:
        findings.append(error("dataset", path, "holds no group", "build the dataset anew"))
    if info is not None:
        findings += info_faults(info, groups, root)
    # Without a root every image would count as missing, and hide the one fault there is.
    shown = [] if image_root is None else groups
    pictures = read_pictures(shown, root / (image_root or "."), path, findings, progress)
    findings += relations.duplicate_groups(groups, path)
    findings += relations.duplicate_questions(groups, pictures, path)
    findings += relations.leaks(groups, pictures, path)
    findings += relations.divided_units(groups, path)
    findings += relations.foreign_references(groups, pictures, path)
    findings += near_duplicates(groups, pictures, path)
    findings += shape_faults(groups, path)
    findings += balance_faults(groups, path)
    counts = {
        "groups": len(groups),
        "questions": sum(len(group.questions) for group in groups),
        "images": len({relative for group in groups for relative in group.images.values()}),
    }
    facts_path, scores_path = facts or root / FACTS_FILE, scores or root / SCORES_FILE
    if facts_path.is_file():
        findings += fact_faults(facts_path, groups, pictures, path)
    elif facts is not None or facts_path.exists():
        findings.append(error("facts-missing", facts_path, "no file", "run tools/generate_facts.py first"))
    if scores_path.is_file():
        findings += score_faults(scores_path, groups, path)
    elif scores is not None or scores_path.exists():
        findings.append(error("scores-missing", scores_path, "no file", "run tools/score_mle.py first"))
    return Report(str(root), in_order(findings), counts)
