"""Parquet shows all that a row holds, and gives the lines of `ad_pl.jsonl` back."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import ROWS_FILE, read_ad_pl
from sage_trl.data.parquet import FEATURES, ParquetWriter, read_parquet
from sage_trl.data.sources import SourceOptions, open_source
from tests.data.sources.trees import grow


@pytest.mark.parametrize("source", ["mmad", "labelme"])
def test_columns_show_what_the_lines_hold(source: str, tmp_path: Path) -> None:
    tree = grow(source, tmp_path / "root")
    build_dataset(open_source(source), SourceOptions(root=tree.root), tmp_path / "data")
    dataset = read_ad_pl(tmp_path / "data")
    writer = ParquetWriter(dataset, ())
    files = [file for split in dataset.info.splits for file in writer.write_split(split, tmp_path / "parquet")]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert datasets.Features.from_arrow_schema(pq.read_schema(files[0])) == FEATURES
    shown = {row["line"]: row for row in rows}
    for line, inspection in enumerate(dataset.inspections):
        row = shown[line]
        assert (row["id"], row["unit"], row["level"]) == (inspection.id, inspection.unit, inspection.level)
        assert [defect["share"] for defect in row["defects"]] == [defect.share for defect in inspection.defects]
        for question, asked in zip(row["questions"], inspection.questions, strict=True):
            options = {option["letter"]: option["text"] for option in question["options"]}
            assert options == (asked.options or {})
            assert list(options) == list(asked.options or {})
            assert (question["choice"], question["type"], question["verdict"]) == (
                asked.choice,
                asked.type,
                asked.verdict,
            )
    assert any(defect["share"] for row in rows for defect in row["defects"])
    assert any(row["unit"] for row in rows) is (source == "labelme")
    assert any(question["choice"] for row in rows for question in row["questions"]) is (source == "mmad")
    lines = {row.line: row.text for file in files for row in read_parquet(file)}
    assert "".join(lines[line] for line in sorted(lines)) == (tmp_path / "data" / ROWS_FILE).read_text(encoding="utf-8")
