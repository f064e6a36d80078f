"""What tools/review.py itself decides; tests/review has the page."""

from __future__ import annotations

import getpass
import importlib.util

import pytest

from sage_trl.errors import RecipeError
from tests.conftest import REPOSITORY


def test_a_user_without_a_name_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("review_tool", REPOSITORY / "tools" / "review.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", getuser)
    with pytest.raises(RecipeError, match="--reviewer Ann"):
        tool._reviewer(None)
    assert tool._reviewer("Ann") == "Ann"
