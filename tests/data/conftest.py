"""A synthetic dataset, built once for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source

GROUPS = {"train": 360, "validation": 180, "test": 30, "unseen": 60}


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> AdPlDirectory:
    """630 groups with seed 1; do not change its files."""
    root: Path = tmp_path_factory.mktemp("synthetic") / "ad_pl"
    build_dataset(open_source("synthetic"), SourceOptions(seed=1, groups=GROUPS), root)
    return read_ad_pl(root)
