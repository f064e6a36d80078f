"""Files of entries, however their endings are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.errors import DataError
from tests.data.sources.trees import grow


@pytest.mark.parametrize("source", ["ad_pl", "manta", "labelme"])
def test_json_files_with_endings_in_capitals(source: str, tmp_path: Path) -> None:
    options = SourceOptions(root=grow(source, tmp_path / "root").root)
    before = list(open_source(source).parts(options))
    for path in list(tmp_path.rglob("*.json")):
        path.rename(path.with_suffix(".JSON"))
    assert list(open_source(source).parts(options)) == before


def test_one_name_with_both_endings_is_a_fault(tmp_path: Path) -> None:
    tree = grow("labelme", tmp_path / "root")
    path = tree.entries[0][0]
    path.with_suffix(".JSON").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"\.json: has the same name as .*\.JSON"):
        list(open_source("labelme").parts(SourceOptions(root=tree.root)))
