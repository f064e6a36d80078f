"""Keys, money, limits and the parts of the client that need no server."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from sage_trl.errors import CredentialsError, LockedError, SageError
from sage_trl.llm_client.client import ChatClient, check_base_url, in_one_line, read_api_key, read_usage, retry_after
from sage_trl.llm_client.cost import Budget, Prices, dollars, find_prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.limits import AdaptiveConcurrency, TokenBucket, backoff
from sage_trl.llm_client.request import ChatRequest, ImageFile, Message, without_credentials

BASE = ChatRequest("m", (Message("user", "hello"),), 10, schema={"type": "object"}, sampling={"temperature": 0})
URL = "http://localhost:1/v1"


def image(content: bytes, folder: Path) -> ImageFile:
    import hashlib

    path = folder / f"{content.hex()}.png"
    path.write_bytes(content)
    return ImageFile(path, hashlib.sha256(content).hexdigest(), "image/png", (10, 10))


def test_everything_that_decides_the_answer_is_in_the_key(tmp_path: Path) -> None:
    variants = [
        BASE,
        replace(BASE, model="n"),
        replace(BASE, messages=(Message("user", "hello!"),)),
        replace(BASE, messages=(Message("system", "hello"),)),
        replace(BASE, messages=(Message("user", "hello", (image(b"a", tmp_path),)),)),
        replace(BASE, messages=(Message("user", "hello", (image(b"b", tmp_path),)),)),
        replace(BASE, max_tokens=11),
        replace(BASE, schema={"type": "string"}),
        replace(BASE, schema=None),
        replace(BASE, schema_name="other"),
        replace(BASE, sampling={"temperature": 1}),
        replace(BASE, repeat=1),
        BASE.in_prompt_mode(),
    ]
    keys = [variant.key(URL) for variant in variants] + [BASE.key("http://localhost:2/v1")]
    assert len(set(keys)) == len(keys)


def test_nothing_else_is_in_the_key(tmp_path: Path) -> None:
    first = image(b"a", tmp_path)
    moved = replace(first, path=tmp_path / "elsewhere.png")
    one, other = (replace(BASE, messages=(Message("user", "x", (found,)),)) for found in (first, moved))
    assert one.key(URL) == other.key("http://user:secret@localhost:1/v1/?token=secret")
    assert without_credentials("https://u:p@h:8/v1/?k=v#f") == "https://h:8/v1"


def test_the_prompt_bound_counts_every_byte() -> None:
    request = ChatRequest("m", (Message("user", "é" * 100),), 10)
    assert request.prompt_token_bound >= 200


def test_money_by_hand() -> None:
    prices = Prices(2.5, 10.0)
    assert prices.cost(1000, 100) == 3_500_000  # 0.0025 + 0.001 USD
    assert Prices(0.15, 0.6).cost(1, 0) == 150
    assert Prices(0.0001, 0).cost(1, 0) == 1  # rounded up
    assert dollars(3_500_000) == "$0.0035"
    assert find_prices("gpt-4o-mini-2024-07-18", True, None, None) == Prices(0.15, 0.6)
    assert find_prices("gpt-4o", False, None, None) == Prices(0, 0)
    assert find_prices("gpt-4o-2024-05-13", True, None, None) == Prices(5.0, 15.0)
    assert find_prices("gpt-4o-search-preview", True, None, None) == Prices(0, 0)  # has a fee per call
    assert find_prices("gpt-4omni", True, None, None) == Prices(0, 0)
    with pytest.raises(SageError, match="both --price-input"):
        find_prices("gpt-4o", True, 1.0, None)


def test_a_budget_counts_what_is_in_flight() -> None:
    budget = Budget(cap=100, spent=20)
    assert budget.reserve(40) and budget.reserve(40) and not budget.reserve(1)
    budget.settle(40, 10)
    assert budget.reserve(30) and not budget.reserve(1)


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", None)])
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_a_date() -> None:
    found = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert found is not None and 95 < found <= 100


@pytest.mark.parametrize(
    "body", ["<html>", "{}", '{"usage": null}', '{"usage": {"prompt_tokens": -1, "completion_tokens": 1}}']
)
def test_no_usage(body: str) -> None:
    assert read_usage(body) is None


def test_concurrency_shrinks_and_grows() -> None:
    async def story() -> None:
        limit = AdaptiveConcurrency(8)
        limit.refused(None)
        limit.refused(None)  # of the same moment
        assert limit.limit == 4
        for _ in range(1000):
            limit.answered()
        assert limit.limit == 8
        for _ in range(8):
            await limit.acquire()
        ninth = asyncio.create_task(limit.acquire())
        await asyncio.sleep(0)
        assert not ninth.done()
        limit.release()
        await ninth

    asyncio.run(story())


def test_retry_after_is_honoured_in_full() -> None:
    async def story() -> float:
        limit = AdaptiveConcurrency(8)
        limit.refused(0.2)
        started = time.monotonic()
        await limit.acquire()
        return time.monotonic() - started

    assert asyncio.run(story()) >= 0.2


def test_a_bucket_lets_no_more_pass() -> None:
    async def story() -> float:
        bucket = TokenBucket(600)  # ten per second, 60 at once
        started = time.monotonic()
        for _ in range(63):
            await bucket.take(1)
        return time.monotonic() - started

    assert asyncio.run(story()) >= 0.29


def test_backoff_doubles_up_to_half_a_minute() -> None:
    for attempt, longest in zip(range(8), itertools.chain((0.5, 1, 2, 4, 8, 16), itertools.repeat(30.0)), strict=False):
        assert longest / 2 <= backoff(attempt) <= longest


def test_a_claim_left_behind_counts_at_its_worst(tmp_path: Path) -> None:
    with Ledger(tmp_path / "c.sqlite") as ledger:
        with ledger.transaction():
            ledger.claim("k", 500)
        assert ledger.spent() == 500
    with Ledger(tmp_path / "c.sqlite") as ledger:
        assert ledger.spent() == 500
        assert ledger.connection.execute("SELECT state FROM attempts").fetchall() == [("unknown",)]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "c.sqlite") as ledger:
        with pytest.raises(RuntimeError), ledger.transaction():
            ledger.claim("k", 500)
            raise RuntimeError
        assert ledger.spent() == 0


@pytest.mark.parametrize(
    "body",
    ["[" * 100_000, '{"usage": {"prompt_tokens": 1e400, "completion_tokens": 1}}']
    + [f'{{"usage": {{"prompt_tokens": {count}, "completion_tokens": 1}}}}' for count in ("true", "9" * 30)],
)
def test_usage_that_no_ledger_could_hold_is_none(body: str) -> None:
    assert read_usage(body) is None


@pytest.mark.parametrize("header", ["inf", "nan", "1e999", "Mon, 99 Jan 99999 00:00:00 GMT"])
def test_a_wait_without_end_is_no_wish(header: str) -> None:
    assert retry_after(header) is None


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "", "ftp://h/v1", "http://", "http://h:port/v1", "http://[::1/v1"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SageError, match="http://localhost:8000/v1"):
        check_base_url(url)


@pytest.mark.parametrize("url", ["https://h/v1", "HTTPS://h/v1"])
def test_certificates_are_always_checked(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    checked = []
    real = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: checked.append(url) or real())
    ChatClient(url, 1.0)
    assert checked == [url]


def test_a_key_that_no_header_can_hold_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-é")
    with pytest.raises(CredentialsError, match="copy the key again") as caught:
        read_api_key("http://localhost:1/v1")
    assert "planted" not in str(caught.value)


def test_a_servers_text_is_one_printable_line() -> None:
    assert in_one_line("a\r\n b\x1b[2J\x07\x9b") == "a b\\x1b[2J\\x07\\x9b"


def test_two_names_of_one_file_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "c.sqlite")
    with Ledger(tmp_path / "c.sqlite"), pytest.raises(LockedError):
        Ledger(tmp_path / "link.sqlite")
