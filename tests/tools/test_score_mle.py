"""tools/score_mle.py: one row per answer in the order of the dataset, and its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_trl.data.building import build_dataset
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.sources import SourceOptions, open_source
from sage_trl.records import JudgeScore, iterate_records
from tests.tools.test_build_dataset import refused, run


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scores") / "ad_pl"
    groups = {"train": 4, "validation": 0, "test": 2, "unseen": 0}
    build_dataset(open_source("synthetic"), SourceOptions(groups=groups), root)
    return root


def test_scores_every_answer_in_order(built: Path) -> None:
    result = run("score_mle.py", "--dataset", built, "--judge", "rule")
    assert result.returncode == 0, result.stderr
    for said in ("minimum pairs by rank", "dH_max < dH_min", "120 scores by rule"):
        assert said in result.stdout
    scores = [score for _, score in iterate_records(JudgeScore, built / "scores.jsonl")]
    expected = [
        (row.id, question.id, index)
        for row in read_ad_pl(built).inspections
        for question in row.questions
        for index in range(4)
    ]
    assert [(score.group_id, score.question_id, score.answer_index) for score in scores] == expected
    assert all(score.mle == 5.0 for score in scores if score.answer_index == 0)


def test_split_output_and_quiet(built: Path, tmp_path: Path) -> None:
    output = tmp_path / "test_scores.jsonl"
    result = run("score_mle.py", "--dataset", built, "--split", "test", "--output", output, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(output.read_text(encoding="utf-8").splitlines()) == 2 * 5 * 4


def test_mistakes(built: Path, tmp_path: Path) -> None:
    refused(run("score_mle.py", "--dataset", built, "--judge", "opnai"), "is unknown")
    refused(run("score_mle.py", "--dataset", built, "--split", "tset"), "no split 'tset'")
    refused(run("score_mle.py", "--dataset", tmp_path / "nowhere"), "no such dataset directory")


def test_scores_of_other_splits_are_kept_and_judges_not_mixed(built: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    assert run("score_mle.py", "--dataset", built, "--output", output).returncode == 0
    whole = output.read_text(encoding="utf-8")
    result = run("score_mle.py", "--dataset", built, "--output", output, "--split", "test")
    assert "(40 scores by rule, 80 of other splits kept)" in result.stdout
    assert output.read_text(encoding="utf-8") == whole
    output.write_text(whole.replace('"judge": "rule"', '"judge": "someone"'), encoding="utf-8")
    refused(run("score_mle.py", "--dataset", built, "--output", output, "--split", "test"), "by 'someone'")
