"""Faults in the middle of a run end it; none makes it wait for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sage_trl.llm_client.client import ChatClient, Kind, Outcome, ServiceError
from sage_trl.llm_client.cost import Prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import RunSettings, make_plan
from sage_trl.llm_client.request import ChatRequest, Message
from sage_trl.llm_client.runner import RunResult, run_plan, run_requests

PRICES = Prices(2.5, 10.0)
URL = "http://127.0.0.1:9/v1"
ANSWER = '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
Send = Callable[[ChatClient, Mapping[str, Any]], Any]


def requests(count: int, schema: Mapping[str, Any] | None = None) -> list[ChatRequest]:
    return [ChatRequest("m", (Message("user", str(number)),), 10, schema=schema) for number in range(count)]


def run(cache: Path, asked: list[ChatRequest], send: Send, monkeypatch: pytest.MonkeyPatch, **given: Any) -> RunResult:
    monkeypatch.setattr(ChatClient, "send", send)
    settings = RunSettings(**{"base_url": URL, "parser": "p", "prices": PRICES, "quiet": True, **given})
    with Ledger(cache) as ledger:
        return run_requests(asked, str, settings, ledger)


def test_a_fault_of_ours_ends_a_run_at_its_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for the reservation of the one that died: they must not wait for ever."""
    sent = 0

    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05)
        raise RuntimeError("ours")

    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the run hangs"))
    signal.alarm(20)
    try:
        with pytest.raises(RuntimeError, match="ours"):
            asked = requests(4)
            run(tmp_path / "c", asked, send, monkeypatch, max_cost=PRICES.worst_case(asked[0]), concurrency=4)
    finally:
        signal.alarm(0)
    assert sent == 1


def test_a_server_that_is_not_there_is_said_at_once_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = 0

    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        nonlocal sent
        sent += 1
        return Outcome(Kind.ANSWERED, ANSWER) if sent > 4 else Outcome(Kind.NOT_SENT, "ConnectError: refused")

    monkeypatch.setattr("sage_trl.llm_client.runner.backoff", lambda _: 0.0)
    url = URL.replace("//", "//user:secret@")
    result = run(tmp_path / "c", requests(2), send, monkeypatch, quiet=False, base_url=url)
    assert result.values == ["x", "x"]
    said = capsys.readouterr().err
    assert said.count(f"{URL} cannot be reached, trying again: ConnectError: refused") == 1
    assert "secret" not in said


def test_an_answer_nested_beyond_reading_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        return Outcome(Kind.ANSWERED, "[" * 100_000)

    result = run(tmp_path / "c", requests(1), send, monkeypatch, tries=1)
    assert list(result.quarantined) == [0]
    assert result.spent == PRICES.worst_case(requests(1)[0])
    with Ledger(tmp_path / "c") as ledger:
        assert sum(ledger.answer_counts().values()) == 1


def test_after_a_signal_no_schema_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        nonlocal sent
        sent += 1
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
        return Outcome(Kind.NO_SCHEMA, "400")

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    mine = signal.getsignal(signal.SIGTERM)
    try:
        result = run(tmp_path / "c", requests(1, {"type": "object"}), send, monkeypatch)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.stopped is not None and result.stopped.exit_code == 143
    assert sent == 1


def test_the_first_signal_drains_though_the_run_was_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(_: ChatClient, body: Mapping[str, Any]) -> Outcome:
        if body["messages"][0]["content"] == "0":
            raise ServiceError("no such model")
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        return Outcome(Kind.ANSWERED, ANSWER)

    result = run(tmp_path / "c", requests(2), send, monkeypatch)
    assert result.values == [None, "x"]
    assert result.stopped is not None and "no such model" in str(result.stopped)


def test_a_file_that_turns_read_only_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0
    with Ledger(tmp_path / "c") as ledger:

        async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
            nonlocal sent
            sent += 1
            if sent == 3:
                ledger.connection.execute("PRAGMA query_only = ON")
            return Outcome(Kind.ANSWERED, ANSWER)

        monkeypatch.setattr(ChatClient, "send", send)
        settings = RunSettings(base_url=URL, parser="p", prices=PRICES, quiet=True, concurrency=1)
        result = run_requests(requests(6), str, settings, ledger)
    assert result.stopped is not None and result.stopped.exit_code == 2 and "readonly" in str(result.stopped)
    assert sent == 3
    with Ledger(tmp_path / "c") as ledger:
        assert sum(ledger.answer_counts().values()) == 2
        assert ledger.spent() == 2 * PRICES.cost(1, 1) + PRICES.worst_case(requests(1)[0])


def test_an_answer_and_the_next_claim_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = 0

    def seen(statement: str) -> None:
        nonlocal committed
        committed += statement == "COMMIT"

    with Ledger(tmp_path / "c") as ledger:
        claims = "SELECT COUNT(*) FROM attempts WHERE state = 'claimed'"

        async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
            with closing(sqlite3.connect(tmp_path / "c")) as other:  # sees what is committed, and nothing else
                assert other.execute(claims).fetchone() == (1,)
            return Outcome(Kind.ANSWERED, ANSWER)

        monkeypatch.setattr(ChatClient, "send", send)
        settings = RunSettings(base_url=URL, parser="p", prices=PRICES, quiet=True, concurrency=1)
        plan = make_plan(requests(20), str, settings, ledger)
        ledger.connection.set_trace_callback(seen)
        result = run_plan(plan, str, settings, ledger)
    assert result.values == ["x"] * 20 and result.asked == 20
    assert committed == 1 + 20 + 1  # the first claim, each answer, and the last value


def test_a_fault_in_reading_gives_the_next_claim_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        return Outcome(Kind.ANSWERED, ANSWER)

    def parse(_: str) -> str:
        raise RuntimeError("ours")

    monkeypatch.setattr(ChatClient, "send", send)
    settings = RunSettings(base_url=URL, parser="p", prices=PRICES, quiet=True, concurrency=1)
    with Ledger(tmp_path / "c") as ledger:
        with pytest.raises(RuntimeError, match="ours"):
            run_requests(requests(3), parse, settings, ledger)
        states = ledger.connection.execute("SELECT state, cost_nano_usd FROM attempts").fetchall()
    assert states == [("answered", PRICES.cost(1, 1)), ("failed", 0)]


def test_a_signal_gives_back_what_was_claimed_and_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        nonlocal sent
        sent += 1
        return Outcome(Kind.ANSWERED, ANSWER)

    whole = Ledger.answered

    def answered(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)  # while the answer is on its way to the disk, with the next claim
        return whole(*arguments)

    monkeypatch.setattr(Ledger, "answered", answered)
    result = run(tmp_path / "c", requests(3), send, monkeypatch, concurrency=1)
    assert (result.values, sent) == (["x", None, None], 1)
    assert result.stopped is not None and result.stopped.exit_code == 143
    assert result.spent == PRICES.cost(1, 1)
    with Ledger(tmp_path / "c") as ledger:
        assert ledger.spent() == PRICES.cost(1, 1)


def test_one_place_asks_an_unreadable_answer_again_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request was claimed before the answer was read, so it goes first."""
    asked: list[str] = []

    async def send(_: ChatClient, body: Mapping[str, Any]) -> Outcome:
        asked.append(body["messages"][0]["content"])
        return Outcome(Kind.ANSWERED, "<html>" if len(asked) == 1 else ANSWER)

    result = run(tmp_path / "c", requests(3), send, monkeypatch, concurrency=1)
    assert result.values == ["x", "x", "x"]
    assert asked == ["0", "1", "0", "2"]


def test_rates_and_the_cap_hold_for_what_is_claimed_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    async def send(_: ChatClient, __: Mapping[str, Any]) -> Outcome:
        times.append(time.monotonic())
        return Outcome(Kind.ANSWERED, ANSWER)

    asked, started = requests(40), time.monotonic()
    cap = 34 * PRICES.cost(1, 1) + PRICES.worst_case(asked[-1])
    result = run(tmp_path / "c", asked, send, monkeypatch, concurrency=1, requests_per_minute=300, max_cost=cap)
    assert result.stopped is not None and result.stopped.exit_code == 4
    assert len(times) == 35 and result.spent == 35 * PRICES.cost(1, 1)
    assert times[34] - started > 0.99  # thirty at once, then five per second
