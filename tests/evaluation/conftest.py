"""Fixtures: a small dataset on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.small_ad_pl import write_small_ad_pl


@pytest.fixture
def ad_pl(tmp_path: Path) -> Path:
    """An AD-PL directory of five groups, see `write_small_ad_pl`."""
    return write_small_ad_pl(tmp_path / "ad_pl")
