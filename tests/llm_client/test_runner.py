"""Faults in the middle of a run end it; none makes it wait for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sage_trl.llm_client.client import ChatClient, Kind, Outcome, ServiceError
from sage_trl.llm_client.cost import Prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import RunSettings
from sage_trl.llm_client.request import ChatRequest, Message
from sage_trl.llm_client.runner import RunResult, run_requests

PRICES = Prices(2.5, 10.0)
URL = "http://127.0.0.1:9/v1"
ANSWER = '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
Send = Callable[[ChatClient, Mapping[str, Any]], Any]


def requests(count: int, schema: Mapping[str, Any] | None = None) -> list[ChatRequest]:
    return [ChatRequest("m", (Message("user", str(number)),), 10, schema=schema) for number in range(count)]


def run(cache: Path, asked: list[ChatRequest], send: Send, monkeypatch: pytest.MonkeyPatch, **given: Any) -> RunResult:
    monkeypatch.setattr(ChatClient, "send", send)
    settings = RunSettings(base_url=URL, parser="p", prices=PRICES, quiet=True, **given)
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
