"""SBERT similarity with a stub encoder, and without the package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.similarity import open_sentence_encoder, similarities

EMBEDDINGS = {"east": [1.0, 0.0], "far east": [5.0, 0.0], "north": [0.0, 2.0], "north-east": [3.0, 3.0], "": [0.0, 0.0]}


def encode(sentences: Sequence[str]) -> Any:
    return np.array([EMBEDDINGS[sentence] for sentence in sentences])


def test_cosines() -> None:
    found = similarities(["east", "east", "east", ""], ["far east", "north", "north-east", "east"], encode)

    assert found == pytest.approx([1, 0, 0.5**0.5, 0])


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 replies for 1 best answers"):
        similarities(["east", "north"], ["east"], encode)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    with pytest.raises(DataError, match=r"sentence-transformers is not installed\n.*sage-trl\[sbert\]") as caught:
        open_sentence_encoder("all-MiniLM-L6-v2")

    assert caught.value.exit_code == 2
