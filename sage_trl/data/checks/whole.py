"""What holds of a dataset as a whole: `dataset.json`, its counts and licences, the balance of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sage_trl.data.checks.findings import Finding, error, from_exception, warning
from sage_trl.data.checks.rows import GroupNote, validate
from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, DatasetInfo
from sage_trl.data.licences import is_named
from sage_trl.errors import DataError
from sage_trl.storage import file_sha256, read_json

# A split so one-sided is answered well by a constant; smaller ones are so by chance.
MAX_MAJORITY = 0.9
MIN_QUESTIONS = 20
MIN_GROUPS = 10


def read_info(root: Path, findings: list[Finding]) -> tuple[DatasetInfo | None, str | None]:
    """`dataset.json`, or None with its faults added to `findings`; and the image root, None where that is at fault."""
    try:
        value = read_json(root / INFO_FILE)
    except DataError as fault:
        findings.append(from_exception("info", fault, root / INFO_FILE))
        return None, "."
    info, faults = validate(DatasetInfo, value, root / INFO_FILE, None)
    findings += faults
    if any(fault.field == "image_root" for fault in faults):
        return info, None
    named = value.get("image_root") if isinstance(value, dict) else None
    return info, named if isinstance(named, str) else "."


def info_faults(info: DatasetInfo, groups: Sequence[GroupNote], root: Path) -> Iterator[Finding]:
    """Digest, counts and licences of `dataset.json` against the rows."""
    path = root / INFO_FILE
    digest = file_sha256(root / ROWS_FILE)
    if digest != info.sha256:
        problem = f"{ROWS_FILE} was changed or cut short: it has {digest[:12]}..."
        remedy = "build the dataset anew, or correct sha256 if the change is meant"
        yield error("digest", path, problem, remedy, field="sha256", value=info.sha256)
    splits = dict(Counter(group.split for group in groups if group.split is not None))
    if info.splits != splits:
        remedy = "build the dataset anew, or correct the counts"
        yield error("splits", path, f"the rows give {splits}", remedy, field="splits", value=info.splits)
    remedy = "name the licence under which the images may be used"
    if not is_named(info.licence):
        yield warning("licence", path, "no licence is named", remedy, field="licence", value=info.licence)
    for name in sorted({group.dataset for group in groups if group.dataset is not None}):
        licence = info.sources.get(name)
        if licence is None or not is_named(licence):
            problem = f"no licence is named for source {name!r}"
            yield warning("licence", path, problem, remedy, field=f"sources.{name}", value=licence)


def shape_faults(groups: Sequence[GroupNote], path: Path) -> Iterator[Finding]:
    """Groups that are no AD-PL groups of five questions with four answers each; they load all the same."""
    valid = [group for group in groups if group.questions]
    groups_of_other_size = [group.line for group in valid if len(group.questions) != 5]
    others = [group.line for group in valid for question in group.questions if question.answers != 4]
    for lines, what in (
        (groups_of_other_size, "groups have not five questions"),
        (others, "questions not four answers"),
    ):
        if lines:
            problem = f"{len(lines)} {what}, as AD-PL has"
            yield warning("shape", path, problem, "nothing, if that is meant", line=lines[0], field="questions")


def balance_faults(groups: Sequence[GroupNote], path: Path) -> Iterator[Finding]:
    """Splits in which one verdict, or one class of parts, is nearly all there is."""
    for split in sorted({group.split for group in groups if group.split is not None}):
        members = [group for group in groups if group.split == split]
        verdicts = Counter(q.verdict for group in members for q in group.questions if q.verdict is not None)
        total = verdicts.total()
        if total >= MIN_QUESTIONS and max(verdicts.values()) > MAX_MAJORITY * total:
            verdict, count = verdicts.most_common(1)[0]
            problem = f"{count} of {total} questions of split {split!r} have the verdict {'yes' if verdict else 'no'}"
            remedy = "add questions or parts with the other verdict"
            yield warning("balance", path, problem, remedy, line=members[0].line, field="verdict", value=split)
        defective = sum(group.is_defective for group in members)
        if len(members) >= MIN_GROUPS and defective in (0, len(members)):
            problem = f"all {len(members)} parts of split {split!r} are {'defective' if defective else 'good'}"
            remedy = "add parts of the other class"
            yield warning("balance", path, problem, remedy, line=members[0].line, field="defects", value=split)
