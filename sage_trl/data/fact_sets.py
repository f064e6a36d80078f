"""Reads `facts.jsonl`: the fact sentences of each test image."""

from __future__ import annotations

from pathlib import Path

from sage_trl.errors import DataError
from sage_trl.records import FactSet, iterate_records

FACTS_FILE = "facts.jsonl"


def read_facts(path: Path) -> dict[str, FactSet]:
    """Fact sets by the SHA-256 of their test image.

    Raises:
        DataError: missing file, faulty row, or two rows for one image.
    """
    facts: dict[str, FactSet] = {}
    for line, row in iterate_records(FactSet, path):
        if row.test_image_sha256 in facts:
            problem = f"field 'test_image_sha256': {row.test_image_sha256[:12]}... has facts on an earlier line"
            raise DataError.at(path, line, problem, "keep one line per image")
        facts[row.test_image_sha256] = row
    return facts
