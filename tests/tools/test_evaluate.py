"""`tools/evaluate.py`: the whole path with a tiny model, and every mistake a user can make."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from sage_trl.data.dataset import read_ad_pl, write_ad_pl
from sage_trl.judge.criteria import CriterionScores
from sage_trl.judge.rule import RuleJudge
from sage_trl.storage import file_sha256, read_json, write_json
from tests.data.sources.trees import grow
from tests.warm import run_warm

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"
RunTool = Callable[..., int]


@pytest.fixture
def arguments(model: Path, ad_pl: Path, tmp_path: Path) -> list[str]:
    output = str(tmp_path / "out")
    return ["--model", str(model), "--dataset", str(ad_pl), "--output", output, "--max-new-tokens", "4"]


def test_whole_path(
    run_tool_file: RunTool,
    arguments: list[str],
    model: Path,
    ad_pl: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_tool_file(
        "evaluate.py", *arguments, "--setting", "zero_shot", "one_shot", "--split", "test", "unseen", "--judge", "rule"
    )

    assert code == 0
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert list(metrics) == ["tiny"]
    assert sorted(metrics["tiny"]) == ["one_shot", "one_shot@unseen", "zero_shot", "zero_shot@unseen"]
    one_shot = metrics["tiny"]["one_shot"]
    assert (one_shot["questions"], one_shot["groups"], one_shot["majority_accuracy"]) == (8, 4, 0.5)
    assert 1 <= one_shot["mle_rule"]["mean"] <= 5
    assert one_shot["calibration"]["questions"] == 8
    assert one_shot["mmad"] is None
    shown = capsys.readouterr()
    assert "one_shot@unseen" in shown.out
    assert "metrics.json" in shown.out
    assert read_json(tmp_path / "out" / "evaluation.json") == {
        "version": 1,
        "dataset": str(ad_pl),
        "dataset_sha256": file_sha256(ad_pl / "ad_pl.jsonl"),
        "facts": str(ad_pl / "facts.jsonl"),
        "seed": 0,
        "splits": ["test", "unseen"],
        "settings": ["zero_shot", "one_shot"],
        "models": {"tiny": str(model)},
    }


def test_mmad_is_counted_by_its_own_protocol(
    run_tool_file: RunTool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = grow("mmad", tmp_path / "root")
    dataset = tmp_path / "mmad"
    built = ["--source", "mmad", "--root", tree.root, "--output", dataset]
    assert run_tool_file("build_dataset.py", *built) == 0
    asked = ["--dataset", dataset, "--output", tmp_path / "out", "--setting", "one_shot", "--max-new-tokens", "2"]

    assert run_tool_file("evaluate.py", "--model", model, *asked, "--no-facts", "--mmad-protocol", "original") == 0

    [entry] = read_json(tmp_path / "out" / "metrics.json")["tiny"].values()
    assert entry["questions"] == 16
    assert list(entry["mmad"]) == ["original"]
    assert "MMAD" in capsys.readouterr().out


def test_two_models_are_compared(
    run_tool_file: RunTool,
    arguments: list[str],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")

    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", "--model", str(model), str(copy)) == 0

    [entry] = read_json(tmp_path / "out" / "comparisons.json")
    assert (entry["first"], entry["second"], entry["setting"]) == ("tiny", "copy", "one_shot")
    # The same weights under another name answer alike.
    assert (entry["questions"], entry["units"], entry["difference"], entry["p_value"]) == (8, 4, 0.0, 1.0)
    assert "only first right" in capsys.readouterr().out

    # A run of one of them on the same replies leaves the comparison, one on others takes it away.
    alone = [*arguments, "--setting", "one_shot", "--quiet"]
    assert run_tool_file("evaluate.py", *alone, "--judge", "rule") == 0
    assert read_json(tmp_path / "out" / "comparisons.json") == [entry]
    assert run_tool_file("evaluate.py", *alone, "--max-new-tokens", "3") == 0
    assert read_json(tmp_path / "out" / "comparisons.json") == []


def test_what_a_run_does_not_measure_stays_as_long_as_it_is_true(
    run_tool_file: RunTool,
    arguments: list[str],
    ad_pl: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["evaluate.py", *arguments, "--setting", "one_shot"]
    # What an untrained model says is all as bad, and units that agree have no interval.
    scores = cycle(range(1, 6))
    monkeypatch.setattr(RuleJudge, "score", lambda *_: CriterionScores(*[next(scores)] * 3))

    def scored() -> tuple[bool, bool]:
        entry = read_json(tmp_path / "out" / "metrics.json")["tiny"]["one_shot"]
        return entry["mle_rule"] is not None, "mle_rule/mean" in entry["intervals"]

    assert run_tool_file(*command, "--judge", "rule") == 0
    shown = capsys.readouterr().out
    assert run_tool_file(*command) == 0
    assert scored() == (True, True)
    assert capsys.readouterr().out == shown

    directory = read_ad_pl(ad_pl)
    [first, *others] = directory.inspections
    write_ad_pl(ad_pl, [first.model_copy(update={"category": "washer"}), *others], directory.info)
    assert run_tool_file(*command, "--limit", "2") == 0
    assert scored() == (False, False)
    told = capsys.readouterr()
    assert "the questions have changed since the last evaluation" in told.err
    assert "tiny, one_shot: dropped mle_rule of an earlier run" in told.err
    assert "tiny, one_shot: only the first 2 groups of the split were asked (--limit)" in told.out


def test_another_model_of_a_name_is_refused(
    run_tool_file: RunTool,
    arguments: list[str],
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["evaluate.py", *arguments, "--setting", "one_shot", "--quiet"]
    assert run_tool_file(*command) == 0
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    other = shutil.copytree(model, tmp_path / "elsewhere" / "tiny")

    assert run_tool_file(*command, "--model", other) == 2
    message = capsys.readouterr().err
    assert f"{model} and {other} would both be called 'tiny' in the results" in message
    assert "different --output directories" in message and "evaluation.json" in message
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    # The same directory by another way is the same model.
    monkeypatch.chdir(model.parent)
    assert run_tool_file(*command, "--model", "tiny") == 0


def test_again_with_controls_keeps_what_is_there(run_tool_file: RunTool, arguments: list[str], tmp_path: Path) -> None:
    one_shot = [*arguments, "--setting", "one_shot", "--quiet"]

    assert run_tool_file("evaluate.py", *one_shot) == 0
    assert run_tool_file("evaluate.py", *one_shot, "--control", "blank_image", "shuffled_reference") == 0
    assert run_tool_file("evaluate.py", *one_shot, "--no-facts") == 0

    assert sorted(read_json(tmp_path / "out" / "metrics.json")["tiny"]) == [
        "one_shot",
        "one_shot+blank_image",
        "one_shot+no_facts",
        "one_shot+shuffled_reference",
    ]
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 4 * 8


def test_evidence_is_written_once_for_each_group(run_tool_file: RunTool, arguments: list[str], tmp_path: Path) -> None:
    command = ["evaluate.py", *arguments, "--setting", "one_shot", "--quiet"]
    predictions, evidence = tmp_path / "out" / "predictions.jsonl", tmp_path / "out" / "evidence.jsonl"
    assert run_tool_file(*command) == 0
    answered = predictions.read_bytes()
    assert not evidence.exists()

    assert run_tool_file(*command, "--evidence") == 0
    rows = [json.loads(line) for line in evidence.read_text(encoding="utf-8").splitlines()]
    assert [(row["model"], row["setting"], row["split"], row["control"]) for row in rows] == [
        ("tiny", "one_shot", "test", None)
    ] * 4
    assert sorted(row["group_id"] for row in rows) == ["g0", "g1", "g2", "g3"]
    # Of four patches all are selected, whose similarity rises; g3 has no reference.
    for row in rows:
        assert [len(fact["attention"]) for fact in row["facts"]] == [4, 4]
        similarity = [patch["similarity"] for patch in row["patches"]]
        assert similarity == ([None] * 4 if row["group_id"] == "g3" else sorted(similarity))
        assert (row["selected"], row["attended"]) == (row["group_id"] != "g3", 4)

    # A kill in the last line: that group alone is done again, and no reply is generated again.
    whole = evidence.read_bytes()
    evidence.write_bytes(whole[:-20])
    assert run_tool_file(*command, "--evidence") == 0
    assert evidence.read_bytes() == whole
    assert predictions.read_bytes() == answered


def test_evidence_of_models_that_fuse_nothing_is_refused(
    run_tool_file: RunTool, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", "--no-facts", "--evidence") == 2
    assert "--evidence: no model fuses facts" in capsys.readouterr().err


def test_quiet_prints_nothing(run_tool_file: RunTool, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool_file("evaluate.py", *arguments, "--setting", "zero_shot", "--limit", "1", "--quiet") == 0

    assert capsys.readouterr() == ("", "")


def test_a_model_that_wants_no_facts_needs_none(
    run_tool_file: RunTool, arguments: list[str], model: Path, ad_pl: Path, tmp_path: Path
) -> None:
    (ad_pl / "facts.jsonl").unlink()
    note = model / "sage_inference.json"
    write_json(note, {"facts": "none", "reference_in_prompt": True, "stage": "sft"})
    try:
        assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", "--quiet") == 0
    finally:
        note.unlink()
    assert list(read_json(tmp_path / "out" / "metrics.json")["tiny"]) == ["one_shot"]


def test_facts_as_text_for_a_model_that_was_trained_without(
    run_tool_file: RunTool, arguments: list[str], model: Path, ad_pl: Path, tmp_path: Path
) -> None:
    note = model / "sage_inference.json"
    write_json(note, {"facts": "none", "reference_in_prompt": True, "stage": "sft"})
    command = ["evaluate.py", *arguments, "--setting", "one_shot", "--quiet", "--facts-as-text"]
    try:
        assert run_tool_file(*command) == 0
        (ad_pl / "facts.jsonl").unlink()
        assert run_tool_file(*command) == 2
    finally:
        note.unlink()
    assert list(read_json(tmp_path / "out" / "metrics.json")["tiny"]) == ["one_shot+hard_facts"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--split", "validation"], "no split 'validation'"),
        (["--dataset", "nowhere"], "nowhere"),
        (["--model", "runs_that/are/not_there", "/nowhere/model"], "no such model directory"),
    ],
)
def test_mistakes_end_with_2_and_one_message(
    run_tool_file: RunTool,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    expected: str,
) -> None:
    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", *changes) == 2

    shown = capsys.readouterr().err
    assert expected in shown
    assert "remedy:" in shown
    assert "Traceback" not in shown


def test_missing_facts_name_the_tool(
    run_tool_file: RunTool, arguments: list[str], ad_pl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (ad_pl / "facts.jsonl").unlink()

    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot") == 2
    assert "facts.jsonl: no such file" in capsys.readouterr().err


def test_similarity_without_its_package_names_the_extra(
    run_tool_file: RunTool,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", "--sbert", "encoder") == 2
    assert "pip install 'sage-trl[sbert]'" in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(
    run_tool_file: RunTool, arguments: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tool_file("evaluate.py", *arguments, "--setting", "one_shot", "--model", model, model) == 2
    assert "would both be called 'tiny'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--setting", "two_shot"],
        ["--setting", "one_shot", "--limit", "0"],
        ["--setting", "one_shot", "--control", "blank"],
        ["--setting", "one_shot", "--control", "blank_image", "--no-facts"],
    ],
)
def test_usage_errors_on_the_real_command_line(arguments: list[str]) -> None:
    required = ["--model", "m", "--dataset", "d", "--output", "o"] if arguments else []
    finished = run_warm([sys.executable, TOOL, *required, *arguments])

    assert finished.returncode == 2
    assert finished.stderr.startswith("usage:")
    assert finished.stdout == ""


def test_a_mistake_on_the_real_command_line(arguments: list[str]) -> None:
    finished = run_warm([sys.executable, TOOL, *arguments, "--setting", "one_shot", "--dataset", "nowhere"])

    assert finished.returncode == 2
    assert finished.stderr.startswith("error: nowhere")
    assert len(finished.stderr.splitlines()) <= 5
