"""Models that want to be asked otherwise: `max_completion_tokens`, no temperature. Nothing of it reaches quarantine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sage_trl.llm_client.batch import run_batches
from sage_trl.llm_client.client import Kind, refusal_kind
from sage_trl.llm_client.cost import Prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import RunSettings, make_plan
from sage_trl.llm_client.replies import read_json
from sage_trl.llm_client.request import ChatRequest, Message
from sage_trl.llm_client.runner import run_requests
from tests.llm_client.conftest import Served
from tests.llm_client.fake_server import REFUSALS

PRICES = Prices(2.5, 10.0)
REFUSING = ("--refuses", "max_tokens", "temperature")


def request(number: int) -> ChatRequest:
    return ChatRequest("m", (Message("user", str(number)),), 40, sampling={"temperature": 0, "seed": 1})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (REFUSALS["max_tokens"], Kind.NO_MAX_TOKENS),
        (REFUSALS["temperature"], Kind.NO_TEMPERATURE),
        ("response_format is not supported", Kind.NO_SCHEMA),
        # A limit that is too high, and a server that knows no other name: the other one could be ignored there.
        ("'max_tokens' or 'max_completion_tokens' is too large: 400", Kind.REFUSED),
        ("max_tokens is not supported", Kind.REFUSED),
        ("temperature must be at least 0", Kind.REFUSED),
    ],
)
def test_what_a_refusal_is_about(text: str, kind: Kind) -> None:
    assert refusal_kind(text) is kind


def test_the_other_ways_keep_key_and_worst_case() -> None:
    other = request(1).with_completion_limit().without_temperature()
    assert other.key("http://h/v1") == request(1).key("http://h/v1")
    assert PRICES.worst_case(other) == PRICES.worst_case(request(1))
    body = other.body()
    assert (body["max_completion_tokens"], body["seed"]) == (40, 1)
    assert not {"max_tokens", "temperature"} & body.keys()


def test_every_request_is_answered_once_and_under_the_cap(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve(*REFUSING)
    asked = [request(number) for number in range(20)]
    cap = sum(PRICES.worst_case(one) for one in asked)
    settings = RunSettings(server.url, "p", PRICES, concurrency=4, max_cost=cap, quiet=True)
    with Ledger(tmp_path / "c") as ledger:
        result = run_requests(asked, read_json, settings, ledger)
        again = run_requests(asked, read_json, settings, ledger)
        assert ledger.spent() == server.stats()["nano_usd"] <= cap
    assert result.stopped is None and not result.quarantined and None not in result.values
    assert set(server.stats()["charged"].values()) == {1} and len(server.stats()["charged"]) == 20
    assert (again.asked, again.values) == (0, result.values)
    # Each of the four that go at once learns of both refusals at most once.
    assert 20 + 2 <= result.asked <= 20 + 2 * 4


def test_in_batches(serve: Callable[..., Served], tmp_path: Path) -> None:
    server = serve(*REFUSING)
    settings = RunSettings(server.url, "p", PRICES, quiet=True)
    with Ledger(tmp_path / "c") as ledger:
        plan = make_plan([request(number) for number in range(3)], read_json, settings, ledger)
        result = run_batches(plan, read_json, settings, ledger)
    assert result.stopped is None and not result.quarantined and None not in result.values
    assert server.stats()["batches"] == 3  # two that were refused for free, and the one that was paid
    assert list(server.stats()["charged"].values()) == [1, 1, 1]
