"""What holds between groups: duplicates, leakage from one split into another, references of another category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sage_trl.data.checks.findings import Finding, error, warning
from sage_trl.data.checks.pictures import Picture
from sage_trl.data.checks.rows import GroupNote, QuestionNote

_SPLIT_REMEDY = "keep all groups of one physical part on one side, and build the dataset anew"


def duplicate_groups(groups: Sequence[GroupNote], path: Path) -> Iterator[Finding]:
    """Ids that occur twice: a leak across splits, a conflict, or the same row again."""
    first: dict[str, GroupNote] = {}
    for group in groups:
        if group.id is None:
            continue
        known = first.setdefault(group.id, group)
        if known is group:
            continue
        place: dict[str, Any] = {"line": group.line, "field": "id", "value": group.id}
        if known.split != group.split:
            problem = f"the group is in split {known.split!r} on line {known.line} and in {group.split!r} here"
            yield error("leakage", path, problem, _SPLIT_REMEDY, **place)
        elif known.content != group.content:
            problem = f"is the id of line {known.line} already, with other content"
            yield error("duplicate-conflict", path, problem, "give every group its own id", **place)
        else:
            problem = f"the same group as on line {known.line}; it is used once"
            yield warning("duplicate", path, problem, "remove one of the two", **place)


class _Asked(NamedTuple):
    group: GroupNote
    question: QuestionNote


def duplicate_questions(groups: Sequence[GroupNote], pictures: Mapping[str, Picture], path: Path) -> Iterator[Finding]:
    """The same question on the same image pair in two places, with the same answer or with another."""
    first: dict[tuple[str | None, str | None, bytes], _Asked] = {}
    seen: set[str] = set()
    for group in groups:
        if group.content in seen:
            continue  # reported as a group
        seen.add(group.content)
        test, reference = _sha256(group, "test_image", pictures), _sha256(group, "reference_image", pictures)
        for index, question in enumerate(group.questions):
            known = first.setdefault((test, reference, question.text), _Asked(group, question))
            if known.question is question:
                continue
            where = f"question {known.question.id!r} of line {known.group.line}"
            place: dict[str, Any] = {"line": group.line, "field": f"questions.{index}", "value": question.id}
            if known.question.verdict != question.verdict:
                problem = f"the same images and question as {where}, with the opposite verdict"
                yield error("duplicate-conflict", path, problem, "correct the wrong one", **place)
            elif known.question.best == question.best:
                problem = f"the same images, question and best answer as {where}"
                yield warning("duplicate", path, problem, "remove one of the two", **place)


def _sha256(group: GroupNote, field: str, pictures: Mapping[str, Picture]) -> str | None:
    relative = group.images.get(field)
    return relative if relative is None or relative not in pictures else pictures[relative].sha256


def leaks(groups: Sequence[GroupNote], pictures: Mapping[str, Picture], path: Path) -> Iterator[Finding]:
    """Image bytes on both sides of a split; an image that is compared with itself.

    References alone on both sides are a warning: they are good parts, and tell nothing of a test part's answer.
    """
    first: dict[tuple[str, str], dict[str, GroupNote]] = {}
    for group in groups:
        for field, relative in group.images.items():
            if relative in pictures and group.split is not None:
                by_split = first.setdefault((pictures[relative].sha256, field), {})
                by_split.setdefault(group.split, group)
    for group in groups:
        for field, relative in group.images.items():
            if relative not in pictures:
                continue
            sha256 = pictures[relative].sha256
            place: dict[str, Any] = {"line": group.line, "field": field, "value": relative}
            other = _earlier(first, sha256, "test_image", group)
            if other is not None:
                problem = f"the same image is a test image of split {other.split!r} on line {other.line}"
                yield error("leakage", path, problem, _SPLIT_REMEDY, **place)
            elif field == "test_image" and (other := _earlier(first, sha256, "reference_image", group)) is not None:
                problem = f"the same image is a reference of split {other.split!r} on line {other.line}"
                yield error("leakage", path, problem, _SPLIT_REMEDY, **place)
            elif (other := _earlier(first, sha256, "reference_image", group)) is not None:
                problem = f"the same image is a reference of split {other.split!r} on line {other.line} too"
                yield warning("shared-reference", path, problem, "take references from the same split", **place)
            if field == "reference_image" and sha256 == _sha256(group, "test_image", pictures):
                # Drawn parts may be equal to the last pixel; two photos never are.
                same_file = relative == group.images["test_image"]
                finding = error if same_file else warning
                problem = "the test image is its own reference" + ("" if same_file else ", in a file of another name")
                yield finding("reference", path, problem, "give another good part, or null", **place)


def _earlier(
    first: Mapping[tuple[str, str], Mapping[str, GroupNote]], sha256: str, field: str, group: GroupNote
) -> GroupNote | None:
    """The first group before this one that shows the image in another split, so that each leak is told once."""
    others = first.get((sha256, field), {})
    return next((one for split, one in others.items() if split != group.split and one.line < group.line), None)


def divided_units(groups: Sequence[GroupNote], path: Path) -> Iterator[Finding]:
    """Physical objects on two sides of a split, each told once for a split."""
    first: dict[tuple[str | None, str], dict[str | None, GroupNote]] = {}
    for group in groups:
        if group.unit is None:
            continue
        by_split = first.setdefault((group.dataset, group.unit), {})
        if by_split and group.split not in by_split:
            known = next(iter(by_split.values()))
            problem = f"this physical unit is in split {known.split!r} on line {known.line} and in {group.split!r} here"
            yield error("leakage", path, problem, _SPLIT_REMEDY, line=group.line, field="unit", value=group.unit)
        by_split.setdefault(group.split, group)


def foreign_references(groups: Sequence[GroupNote], pictures: Mapping[str, Picture], path: Path) -> Iterator[Finding]:
    """References that are known as pictures of another category."""
    tested: dict[str, str] = {}
    referenced: dict[str, Counter[str]] = {}
    for group in groups:
        if group.category is None:
            continue
        test, reference = (_sha256(group, field, pictures) for field in ("test_image", "reference_image"))
        if test is not None:
            tested.setdefault(test, group.category)
        if reference is not None:
            referenced.setdefault(reference, Counter())[group.category] += 1
    for group in groups:
        reference = _sha256(group, "reference_image", pictures)
        if reference is None or group.category is None or reference not in referenced:
            continue
        shown = tested.get(reference) or referenced[reference].most_common(1)[0][0]
        if shown != group.category:
            problem = f"the reference shows a part of category {shown!r}, the group is of {group.category!r}"
            remedy = "give a good part of the same category, or null"
            value = group.images["reference_image"]
            yield error(
                "reference-category", path, problem, remedy, line=group.line, field="reference_image", value=value
            )
