"""What has to be asked, what is known already, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_trl.llm_client.client import Kind
from sage_trl.llm_client.cost import Prices
from sage_trl.llm_client.ledger import Ledger, StoredAnswer
from sage_trl.llm_client.replies import UnreadableError, read_reply
from sage_trl.llm_client.request import ChatRequest

Parse = Callable[[str], Any]
BYTES_PER_TOKEN = 4  # of English, for the expected cost; the worst case counts one
EXPECTED_REPLY = 0.5  # of max_tokens
OTHER_WAYS: Mapping[Kind, Callable[[ChatRequest], ChatRequest]] = {
    Kind.NO_SCHEMA: ChatRequest.in_prompt_mode,
    Kind.NO_MAX_TOKENS: ChatRequest.with_completion_limit,
    Kind.NO_TEMPERATURE: ChatRequest.without_temperature,
}
"""How to ask a server that refused what it does not know; a request is asked each way once."""


@dataclass(frozen=True)
class RunSettings:
    """How requests are sent.

    Attributes:
        base_url: of the server's API.
        parser: name and version of `parse`; another version reads the stored answers anew.
        prices: USD per million tokens.
        concurrency: most requests at a time.
        requests_per_minute, tokens_per_minute: limits of the account, or None.
        max_cost: nano-dollars that the ledger may reach, earlier runs included; None for no cap.
        seconds: longest time of one call.
        tries: answers that may be unreadable before a request goes into quarantine.
        retry_quarantined: ask the requests in quarantine again.
        quiet: show nothing.
    """

    base_url: str
    parser: str
    prices: Prices
    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_cost: int | None = None
    seconds: float = 120.0
    tries: int = 3
    retry_quarantined: bool = False
    quiet: bool = False


@dataclass
class Item:
    """A distinct request on its way.

    Attributes:
        key: of its content.
        request: as it is sent.
        rows: in the caller's list.
        unreadable: answers that could not be read.
        unknown: attempts of this run that may have been paid, without an answer.
        free: attempts of this run that were not paid.
    """

    key: str
    request: ChatRequest
    rows: list[int] = field(default_factory=list)
    unreadable: int = 0
    unknown: int = 0
    free: int = 0

    def can_be_asked_otherwise(self, refusal: Kind) -> bool:
        """Whether there is another way to ask what was refused."""
        return refusal in OTHER_WAYS and OTHER_WAYS[refusal](self.request) != self.request

    def ask_otherwise(self, refusals: Iterable[Kind], base_url: str) -> None:
        """Do without what the server refused, of this item or of others."""
        before = self.request
        for refusal in refusals:
            self.request = OTHER_WAYS[refusal](self.request)
        if self.request != before:
            self.key = self.request.key(base_url)


@dataclass(frozen=True)
class Estimate:
    """What requests are expected to take, and what they cost at most if each is asked once; money in nano-dollars."""

    requests: int
    prompt_tokens: int
    reply_tokens: int
    expected: int
    worst: int


def estimate(requests: Iterable[ChatRequest], prices: Prices, times: int = 1) -> Estimate:
    """What asking each of `requests` so many times may take."""
    sums = [0] * 5
    for request in requests:
        prompt, reply = expected_prompt_tokens(request), round(request.max_tokens * EXPECTED_REPLY)
        one = (1, prompt, reply, prices.cost(prompt, reply), prices.worst_case(request))
        sums = [total + times * value for total, value in zip(sums, one, strict=True)]
    return Estimate(*sums)


@dataclass
class Plan:
    """What a run is going to do.

    Attributes:
        values: the value of each of the caller's requests, None where there is none yet.
        pending: distinct requests that have to be asked.
        quarantined: row -> reason.
        cached: rows whose value was known.
        estimate: of all pending requests.
    """

    values: list[Any]
    pending: list[Item] = field(default_factory=list)
    quarantined: dict[int, str] = field(default_factory=dict)
    cached: int = 0
    estimate: Estimate = field(default_factory=lambda: Estimate(0, 0, 0, 0, 0))


def make_plan(requests: Sequence[ChatRequest], parse: Parse, settings: RunSettings, ledger: Ledger) -> Plan:
    """Look every request up; stored answers that this parser has not read yet are read now, for free."""
    plan = Plan(values=[None] * len(requests))
    items: dict[str, Item] = {}
    for row, request in enumerate(requests):
        key = request.key(settings.base_url)
        items.setdefault(key, Item(key, request)).rows.append(row)
    lookup = _Lookup(ledger, parse, settings)
    with ledger.transaction():
        for item in items.values():
            lookup.place(item, plan)
    plan.estimate = estimate((item.request for item in plan.pending), settings.prices)
    return plan


def read_value(request: ChatRequest, body: str, parse: Parse) -> Any:
    """The value in the raw text of an answer to `request`.

    Raises:
        UnreadableError: it is not what was asked for.
    """
    value = parse(read_reply(body, takes_any=request.takes_any_reply))
    if request.check is not None:
        request.check(value)
    return value


def expected_prompt_tokens(request: ChatRequest) -> int:
    """A guess at the prompt's tokens, a quarter of their bound."""
    return request.prompt_token_bound // BYTES_PER_TOKEN


class _Lookup:
    """Everything that the ledger knows, read once."""

    def __init__(self, ledger: Ledger, parse: Parse, settings: RunSettings) -> None:
        self._ledger, self._parse, self._settings = ledger, parse, settings
        self._values = ledger.parsed_values(settings.parser)
        self._quarantined = ledger.quarantined(settings.parser)
        self._counts = ledger.answer_counts()
        self._is_empty = not (self._values or self._quarantined or self._counts)

    def place(self, item: Item, plan: Plan) -> None:
        """Put an item where it belongs; a value got without a schema, in an earlier run, counts too."""
        keys = [item.key]
        if item.request.schema is not None and not self._is_empty:
            keys.append(item.request.in_prompt_mode().key(self._settings.base_url))
        for key in keys:
            found, value = self._find(key, item.request)
            if found:
                plan.cached += len(item.rows)
                for row in item.rows:
                    plan.values[row] = value
                return
        reasons = [reason for key in keys if (reason := self._reason(key)) is not None]
        if reasons and not self._settings.retry_quarantined:
            plan.quarantined.update(dict.fromkeys(item.rows, reasons[0]))
            return
        if reasons:
            self._ledger.release(keys, self._settings.parser)
        item.unreadable = 0 if reasons else self._counts.get(item.key, 0)
        plan.pending.append(item)

    def _find(self, key: str, request: ChatRequest) -> tuple[bool, Any]:
        if key in self._values:
            return True, json.loads(self._values[key])
        for answer in self._ledger.answers(key) if key in self._counts else ():
            try:
                value = read_value(request, answer.body, self._parse)
            except UnreadableError:
                continue
            self._ledger.parsed(key, self._settings.parser, answer, json.dumps(value))
            return True, value
        return False, None

    def _reason(self, key: str) -> str | None:
        if key in self._quarantined:
            return self._quarantined[key]
        if self._counts.get(key, 0) < self._settings.tries:
            return None
        last: StoredAnswer = self._ledger.answers(key)[-1]
        reason = f"{self._counts[key]} unreadable answers"
        self._ledger.quarantine(key, self._settings.parser, reason, last.body)
        return reason
