"""Questions with an answer that has no score: an error, or left out and counted. A score is never filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_trl.data.rows import PairCounts, load_ad_pl
from sage_trl.errors import DataError
from sage_trl.storage import write_jsonl
from tests.judge.judged_ad_pl import write_judged_ad_pl


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Two groups of the split `train`, of which one question lacks one score of four."""
    root = write_judged_ad_pl(tmp_path / "d", 4)
    rows = [
        {"group_id": group, "question_id": f"q{question}", "answer_index": rank, "judge": "j"}
        | dict.fromkeys(("type", "location", "logic", "mle"), 5.0 - rank)
        for group in ("g00001", "g00003")
        for question in range(5)
        for rank in range(4)
    ]
    del rows[6]  # q1 of the first group, rank 2
    write_jsonl(root / "scores.jsonl", rows)
    return root


def test_an_incomplete_set_is_an_error(scored: Path) -> None:
    with pytest.raises(DataError, match=r"missing for 1 answers, first g00001/q1 answer 2[\s\S]*drop_incomplete"):
        load_ad_pl(scored, kind="preference", scores=scored / "scores.jsonl")


def test_or_left_out_and_counted(scored: Path) -> None:
    counts = PairCounts()
    rows = load_ad_pl(scored, kind="preference", scores=scored / "scores.jsonl", drop_incomplete=True, counts=counts)
    assert len(rows) == 9 * 2
    assert ("g00001", "q1") not in set(zip(rows["group_id"], rows["question_id"], strict=True))
    assert (counts.questions, counts.incomplete) == (10, 1)
    assert "1 questions with incomplete scores" in counts.summary()


def test_the_judge_cannot_write_what_training_would_misread(scored: Path) -> None:
    path = scored / "scores.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(lines[0]), "type": 0}), *lines[1:]]), encoding="utf-8")
    with pytest.raises(DataError, match="'type'"):
        load_ad_pl(scored, kind="preference", scores=path, drop_incomplete=True)
