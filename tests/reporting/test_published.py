"""The published figures are those of the paper's text, where the paper is at hand."""

from __future__ import annotations

import re

import pytest

from sage_trl.reporting.published import TABLE_1, TABLE_2, TABLE_3
from tests.conftest import REPOSITORY

PAPER = REPOSITORY.parent / "shared" / "paper" / "SAGE.txt"
# As the text, which was read from a picture of the page, spells them.
SPELT = {"GPT-4o": "GPT-40", "SAGE": "SAGE (Ours)"}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[list[float]]]:
    """Method -> the numbers of its rows, in the order of the tables."""
    if not PAPER.is_file():
        pytest.skip(f"no paper at {PAPER}")
    found: dict[str, list[list[float]]] = {}
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        method, *cells = line.split("\t")
        numbers = [float(number) for cell in cells for number in re.findall(r"\d+\.\d+", cell)]
        if numbers:
            found.setdefault(re.sub(r" \[\d+\]$", "", method), []).append(numbers)
    return found


def flat(row) -> list[float]:
    return [number for figures in row[1:] for number in (figures if isinstance(figures, tuple) else [figures])]


def test_tables_are_those_of_the_paper(rows):
    for manta, mpdd in zip(*TABLE_1.values(), strict=True):
        assert manta.method == mpdd.method
        assert rows[SPELT.get(manta.method, manta.method)][0] == flat(manta) + flat(mpdd), manta.method
    for row in TABLE_2:
        assert rows[SPELT.get(row.method, row.method)][1] == flat(row), row.method
    for row in TABLE_3:
        assert rows[row.method][0] == flat(row), row.method
