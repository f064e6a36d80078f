"""`tools/evaluate.py --model openai:NAME`: a model behind a server as model under test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_trl.storage import read_json
from tests.llm_client.conftest import Served, serve
from tests.tools.judging import KEY, PRICES

__all__ = ["serve"]
Serve, RunTool = Callable[..., Served], Callable[..., int]
QUESTIONS = 8


@pytest.fixture
def evaluate(ad_pl: Path, tmp_path: Path, run_tool_file: RunTool, monkeypatch: pytest.MonkeyPatch) -> RunTool:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fixed = ("--model", "openai:lab/vlm", "--dataset", ad_pl, "--output", tmp_path / "out", "--setting", "one_shot")

    def run(server: Served, *options: str | Path) -> int:
        return run_tool_file("evaluate.py", *fixed, "--base-url", server.url, *PRICES, *options)

    return run


def predictions(tmp_path: Path) -> list[dict[str, Any]]:
    text = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def entry(tmp_path: Path, name: str = "one_shot") -> dict[str, Any]:
    found: dict[str, Any] = read_json(tmp_path / "out" / "metrics.json")["vlm"][name]
    return found


def charged(server: Served) -> int:
    return sum(server.stats()["charged"].values())


def test_both_settings_and_a_judge_elsewhere(
    evaluate: RunTool, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, judge = serve("--inspects", "--says", KEY), serve("--says", KEY)
    options = ["--setting", "zero_shot", "one_shot", "--judge", "openai", "--judge-base-url", judge.url, "--yes"]

    assert evaluate(server, *options) == 0

    rows = predictions(tmp_path)
    assert len(rows) == 2 * QUESTIONS and {row["model"] for row in rows} == {"vlm"}
    assert {row["prediction"] for row in rows} <= {"Yes, a scratch.", "No, nothing is wrong."}
    assert charged(server) == 2 * QUESTIONS - 2, "g3 has no reference: its two questions are the same in both settings"
    assert entry(tmp_path)["questions"] == QUESTIONS and entry(tmp_path)["mle_unscored"] == 0
    assert entry(tmp_path, "zero_shot")["mle"]["mean"] >= 1
    shown = capsys.readouterr()
    assert "to ask vlm: at most 16" in shown.err and "to judge: at most 16" in shown.err
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in shown.out + shown.err and KEY.encode() not in written

    before = (tmp_path / "out" / "metrics.json").read_bytes()
    asked = charged(server), charged(judge)
    (tmp_path / "out" / "predictions.jsonl").unlink()
    assert evaluate(server, *options, "--quiet") == 0, "the cache has all replies"
    assert (charged(server), charged(judge)) == asked
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_nothing_is_sent_without_consent(
    evaluate: RunTool, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("--inspects")

    assert evaluate(server, "--dry-run") == 0
    assert "cost: about $" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert evaluate(server) == 2
    assert "nobody is there to be asked" in capsys.readouterr().err
    assert server.stats()["received"] == {}


def test_a_cap_stops_it_and_the_same_command_goes_on(evaluate: RunTool, serve: Serve, tmp_path: Path) -> None:
    server = serve("--inspects")

    assert evaluate(server, "--yes", "--max-cost", "0.0085", "--concurrency", "1") == 4
    assert 0 < charged(server) < QUESTIONS
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert evaluate(server, "--yes", "--max-cost", "9", "--quiet") == 0
    assert charged(server) == QUESTIONS and len(predictions(tmp_path)) == QUESTIONS


def test_questions_without_a_reply_are_missing_and_told(
    evaluate: RunTool, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve("--inspects", "--refuses-word", "scratched?")

    assert evaluate(server, "--yes") == 3

    figures = entry(tmp_path)
    assert len(predictions(tmp_path)) == QUESTIONS / 2
    assert (figures["questions"], figures["missing"], figures["unanswered"]) == (4, 4, 4)
    assert (figures["incomplete"], figures["acc_g"]) == (4, 0.0)
    shown = capsys.readouterr()
    assert "against our policy" in shown.err and "g0/q1" in shown.err and "4 (4 unanswered)" in shown.out
    assert evaluate(server, "--yes", "--quiet") == 3, "what is in quarantine stays there"


def test_a_model_without_any_reply_does_not_undo_the_others(evaluate: RunTool, serve: Serve, tmp_path: Path) -> None:
    server = serve("--inspects", "--refuses-word", "lab/mute")

    assert evaluate(server, "--yes", "--quiet", "--model", "openai:lab/vlm", "openai:lab/mute", "--judge", "rule") == 3

    mute = read_json(tmp_path / "out" / "metrics.json")["mute"]["one_shot"]
    assert (mute["questions"], mute["accuracy"], mute["unanswered"], mute["mle_rule"]) == (0, None, QUESTIONS, None)
    assert entry(tmp_path)["questions"] == QUESTIONS
    assert read_json(tmp_path / "out" / "comparisons.json") == []


def test_a_conversation_ends_where_no_reply_came(evaluate: RunTool, serve: Serve, tmp_path: Path) -> None:
    server = serve("--inspects", "--refuses-word", "scratched?")  # the first question of each group

    assert evaluate(server, "--yes", "--quiet", "--turns", "conversation") == 3

    assert entry(tmp_path, "one_shot_conversation")["unanswered"] == QUESTIONS
    assert sum(server.stats()["received"].values()) == QUESTIONS / 2, "the second questions were not asked"


def test_faults_on_the_way_change_no_reply(evaluate: RunTool, serve: Serve, tmp_path: Path) -> None:
    server = serve("--inspects", "--faults", "0.3", "--seed", "3")

    assert evaluate(server, "--yes", "--quiet", "--timeout", "1") == 0

    assert {row["prediction"] for row in predictions(tmp_path)} <= {
        *("Yes, a scratch.", "No, nothing is wrong."),
        "Sure! I would say 4, 4 and 5.",  # garbage is what the model says
    }
    assert entry(tmp_path)["unanswered"] == 0


def test_a_server_that_knows_no_such_model(evaluate: RunTool, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(serve("--status", "404:no such model"), "--yes", "--quiet") == 8
    assert "check --base-url and --model" in capsys.readouterr().err
