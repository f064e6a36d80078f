"""The Batch API path, killed after every step in turn: every request is paid once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import SageError
from sage_trl.llm_client import batch as batch_module
from sage_trl.llm_client.batch import _BatchRun, run_batches
from sage_trl.llm_client.cost import BATCH_DISCOUNT, Prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import RunSettings, make_plan
from sage_trl.llm_client.request import ChatRequest, Message
from sage_trl.llm_client.runner import RunResult, run_requests
from tests.llm_client.conftest import Served
from tests.llm_client.fake_server import content_hash, true_scores

Serve = Callable[..., Served]
PRICES = Prices(2.5, 10.0).scaled(BATCH_DISCOUNT)


class KilledError(BaseException):
    """Ends a run in the middle."""


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def requests(count: int) -> list[ChatRequest]:
    return [ChatRequest("gpt-4o", (Message("user", f"Judge {number}"),), 60) for number in range(count)]


def parse(text: str) -> Any:
    from sage_trl.judge.prompts import parse_judgement

    return parse_judgement(text)


def run(cache: Path, server: Served, asked: list[ChatRequest], **settings: Any) -> RunResult:
    given = RunSettings(base_url=server.url, parser="p1", prices=PRICES, quiet=True, **settings)
    with Ledger(cache) as ledger:
        return run_batches(make_plan(asked, parse, given, ledger), parse, given, ledger)


def true_values(asked: list[ChatRequest]) -> list[dict[str, int]]:
    return [true_scores(content_hash(request.body())) for request in asked]


def scores(result: RunResult) -> list[Any]:
    return [value and {name: value[name] for name in ("type", "location", "logic")} for value in result.values]


STEPS = ["_build", "_find_file", "_upload", "_note", "_find_batch", "_create", "_wait", "_answers", "_read"]


def run_and_die(cache: Path, server: Served, asked: list[ChatRequest], step: str, moment: str) -> None:
    """In a process of its own: kill -9 at the second call of a step, before it or after it."""
    whole = getattr(_BatchRun, step)
    calls = 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if moment == "after":
            result = whole(*arguments)
            # A generator does its work when it is read.
            result = list(result) if step == "_answers" else result
        if calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if moment == "after" else whole(*arguments)

    setattr(_BatchRun, step, killed)
    run(cache, server, asked)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_everything_is_paid_once(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    server, asked = serve(), requests(7)
    monkeypatch.setattr(batch_module, "SHARD_REQUESTS", 3)
    arguments = (tmp_path / "c.sqlite", server, asked, step, moment)
    process = multiprocessing.get_context("fork").Process(target=run_and_die, args=arguments)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    result = run(tmp_path / "c.sqlite", server, asked)
    assert result.stopped is None
    assert scores(result) == true_values(asked)
    stats = server.stats()
    assert set(stats["charged"].values()) == {1} and len(stats["charged"]) == 7
    assert stats["batches"] == 3
    assert result.spent == stats["nano_usd"] * BATCH_DISCOUNT


def test_faults_are_asked_again_and_the_rest_once(tmp_path: Path, serve: Serve) -> None:
    server, asked = serve("--faults", "0.3"), requests(60)
    result = run(tmp_path / "c.sqlite", server, asked)
    assert result.stopped is None
    known = [row for row in range(60) if row not in result.quarantined]
    assert len(known) > 50
    assert [scores(result)[row] for row in known] == [true_values(asked)[row] for row in known]
    assert result.spent >= server.stats()["nano_usd"] * BATCH_DISCOUNT


def test_all_batches_are_under_way_before_one_is_waited_for(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked = serve(), requests(7)
    monkeypatch.setattr(batch_module, "SHARD_REQUESTS", 3)
    whole, under_way = _BatchRun._wait, []

    def wait(run: _BatchRun, shard: batch_module.Shard) -> Any:
        under_way.append(server.stats()["batches"])
        return whole(run, shard)

    monkeypatch.setattr(_BatchRun, "_wait", wait)
    assert None not in run(tmp_path / "c.sqlite", server, asked).values
    assert under_way == [3, 3, 3]


def test_a_cap_within_the_second_shard_still_sends_the_first(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked = serve(), requests(20)
    monkeypatch.setattr(batch_module, "SHARD_REQUESTS", 3)
    cap = 4 * PRICES.worst_case(asked[0])
    result = run(tmp_path / "c.sqlite", server, asked, max_cost=cap)
    assert result.stopped is not None and result.stopped.exit_code == 4
    assert sum(value is not None for value in result.values) >= 4
    assert server.stats()["nano_usd"] * BATCH_DISCOUNT <= result.spent <= cap


def test_what_is_in_a_batch_is_not_asked_one_by_one(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked, cache = serve(), requests(3), tmp_path / "c.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(_BatchRun, "_wait", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            run(cache, server, asked)
    given = RunSettings(base_url=server.url, parser="p1", prices=PRICES, quiet=True)
    with Ledger(cache) as ledger, pytest.raises(SageError, match="3 of the requests are in a batch"):
        run_requests(asked, parse, given, ledger)
    assert scores(run(cache, server, asked)) == true_values(asked)
    assert set(server.stats()["received"].values()) == {1}


def test_separators_inside_an_answer_cut_no_line(tmp_path: Path, serve: Serve) -> None:
    server, asked = serve("--says", "one\u2028two\x85three \U0001f600", "--raw-text"), requests(2)
    result = run(tmp_path / "c.sqlite", server, asked)
    assert scores(result) == true_values(asked)
    assert "one\u2028two\x85three" in result.values[0]["rationale"]


def test_a_torn_output_file_is_told_and_fetched_again(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked = serve(), requests(2)
    with monkeypatch.context() as patch:
        patch.setattr(_BatchRun, "redact", lambda _, text: text[:-20])
        torn = run(tmp_path / "c.sqlite", server, asked)
    assert torn.stopped is not None and torn.stopped.exit_code == 8
    assert scores(run(tmp_path / "c.sqlite", server, asked)) == true_values(asked)
    assert set(server.stats()["charged"].values()) == {1}


def test_the_cap_holds(tmp_path: Path, serve: Serve) -> None:
    server, asked = serve(), requests(20)
    cap = 5 * PRICES.worst_case(asked[0])
    result = run(tmp_path / "c.sqlite", server, asked, max_cost=cap)
    assert result.stopped is not None and result.stopped.exit_code == 4
    assert 0 < server.stats()["nano_usd"] * BATCH_DISCOUNT <= result.spent <= cap


def test_a_server_without_batches(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    server.url = server.url.replace("/v1", "/v2")
    result = run(tmp_path / "c.sqlite", server, requests(2))
    assert result.stopped is not None and result.stopped.exit_code == 8
