"""Attempts: each is claimed on the disk, sent, and stored, and the next one claimed in the same commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sage_trl.errors import SageError
from sage_trl.llm_client.client import ChatClient, Kind, Outcome, ServiceError, in_one_line, read_usage
from sage_trl.llm_client.cost import Budget, CostCapError, dollars
from sage_trl.llm_client.group_commit import GroupCommitter
from sage_trl.llm_client.ledger import Claim, Ledger, StoredAnswer
from sage_trl.llm_client.limits import AdaptiveConcurrency, TokenBucket
from sage_trl.llm_client.plan import Item, RunSettings, expected_prompt_tokens


@dataclass(frozen=True)
class Claimed:
    """A request whose claim is on the disk; it has a place and must be sent or given back."""

    item: Item
    body: dict[str, Any]
    claim: Claim


class Sender:
    """Sends what is claimed, and keeps to the limits of places, rates and money.

    Args:
        settings: server, limits and money.
        ledger: where claims and answers go.
        budget: what may be spent.
        waiting: items that nobody works on yet, in order.
    """

    def __init__(self, settings: RunSettings, ledger: Ledger, budget: Budget, waiting: deque[Item]) -> None:
        self._settings, self._ledger, self._budget, self._waiting = settings, ledger, budget, waiting
        self._client = ChatClient(settings.base_url, settings.seconds)
        self._committer = GroupCommitter(ledger)
        self._limit = AdaptiveConcurrency(settings.concurrency)
        self._requests = TokenBucket(settings.requests_per_minute)
        self._tokens = TokenBucket(settings.tokens_per_minute)
        self._settled = asyncio.Event()
        self._in_a_row = 0  # attempts without an answer
        self.asked = 0
        self.refused: set[Kind] = set()  # what this server does not know
        self.busy: set[asyncio.Task[Any]] = set()  # tasks with a claim, which must not be cancelled

    async def close(self) -> None:
        """Write what is waiting to be written.

        Raises:
            DataError: some change could not be written.
        """
        try:
            await self._committer.stop()
        finally:
            await self._client.close()

    def later(self, change: Callable[[], Any]) -> None:
        """Change the ledger with the next commit."""
        self._committer.later(change)

    async def claim(self, item: Item) -> Claimed:
        """Wait until a request may be sent, and commit its claim.

        Raises:
            CostCapError: it could exceed the cap.
            DataError: an image cannot be read, or the ledger cannot be written.
        """
        await self._limit.acquire()
        try:
            item.ask_otherwise(self.refused, self._settings.base_url)
            await self._requests.take(1)
            await self._tokens.take(_tokens(item))
            body, worst = item.request.body(), self._settings.prices.worst_case(item.request)
            await self._reserve(worst)
            self.busy.add(_this_task())
            claim = await self._committer.commit(partial(self._ledger.claim, item.key, worst))
        except BaseException:
            self._leave()
            raise
        return Claimed(item, body, claim)

    async def send(self, claimed: Claimed) -> tuple[Outcome, StoredAnswer | None, Claimed | None]:
        """Send it once and commit what came back.

        Returns:
            What came of it; the raw answer, if one came; and then, where nothing has to be waited for, the next of the
            waiting items, claimed in the same commit.

        Raises:
            CredentialsError, ServiceError: the server will answer nothing.
            DataError: the ledger cannot be written.
        """
        following = None
        try:
            outcome, answer, following = await self._exchange(claimed)
        finally:
            if following is None:
                self._leave()
        return outcome, answer, following

    async def give_back(self, claimed: Claimed) -> None:
        """Do not send it after all."""
        try:
            await self._failed(claimed.claim, "never sent", may_be_paid=False)
        finally:
            self._leave()

    async def _exchange(self, claimed: Claimed) -> tuple[Outcome, StoredAnswer | None, Claimed | None]:
        self.asked += 1
        claim = claimed.claim
        try:
            outcome = await self._client.send(claimed.body)
        except SageError as error:
            await self._failed(claim, str(error), may_be_paid=False)
            raise
        if outcome.kind is not Kind.ANSWERED:
            await self._failed(claim, outcome.text, may_be_paid=outcome.kind is Kind.UNKNOWN)
            self._note_failure(outcome)
            return outcome, None, None
        usage = read_usage(outcome.text)
        cost = claim.worst if usage is None else self._settings.prices.cost(*usage)
        store = partial(self._ledger.answered, claim, outcome.text, cost, usage)
        following = None
        if (draft := self._draft_of_next()) is None:
            answer = await self._committer.commit(store)
        else:
            item, body, worst = draft
            take_up = partial(self._ledger.claim, item.key, worst)
            answer, next_claim = await self._committer.commit(lambda: (store(), take_up()))
            following = Claimed(item, body, next_claim)
        self._settle(claim.worst, cost)
        self._limit.answered()
        self._in_a_row = 0
        return outcome, answer, following

    def _draft_of_next(self) -> tuple[Item, dict[str, Any], int] | None:
        """The next of the waiting items, its body and its worst case, set aside, if this place may take it at once."""
        if not self._waiting or not self._limit.may_stay():
            return None
        item = self._waiting[0]
        item.ask_otherwise(self.refused, self._settings.base_url)
        tokens, worst = _tokens(item), self._settings.prices.worst_case(item.request)
        if not (self._requests.has(1) and self._tokens.has(tokens)):
            return None
        try:
            body = item.request.body()
        except Exception:  # such as an image that is gone: told in the item's own turn, once the answer is safe
            return None
        if not self._budget.reserve(worst):
            return None
        self._requests.draw(1)
        self._tokens.draw(tokens)
        self._waiting.popleft()
        return item, body, worst

    async def _reserve(self, worst: int) -> None:
        """Wait until the request fits under the cap beside what is in flight."""
        while not self._budget.reserve(worst):
            if self._budget.reserved == 0:
                left = self._budget.spent
                remedy = "give a higher --max-cost to go on where this stopped"
                raise CostCapError(
                    f"the next request could exceed the cap; spent so far: {dollars(left)}\n  remedy: {remedy}"
                )
            self._settled.clear()
            await self._settled.wait()

    async def _failed(self, claim: Claim, error: str, *, may_be_paid: bool) -> None:
        await self._committer.commit(partial(self._ledger.failed, claim, error, may_be_paid=may_be_paid))
        self._settle(claim.worst, claim.worst if may_be_paid else 0)

    def _settle(self, worst: int, cost: int) -> None:
        self._budget.settle(worst, cost)
        self._settled.set()

    def _note_failure(self, outcome: Outcome) -> None:
        if outcome.kind is Kind.RATE_LIMITED or outcome.retry_after is not None:
            self._limit.refused(outcome.retry_after)
        if outcome.kind in (Kind.UNKNOWN, Kind.NOT_SENT):
            self._in_a_row += 1
            if self._in_a_row > 20 + 4 * self._settings.concurrency:
                raise ServiceError(
                    f"{self._in_a_row} attempts in a row without an answer, the last: {in_one_line(outcome.text)}\n"
                    "  remedy: check the server, then give the same command again"
                )

    def _leave(self) -> None:
        self.busy.discard(_this_task())
        self._limit.release()


def _tokens(item: Item) -> int:
    """What a rate limit counts of a request."""
    return expected_prompt_tokens(item.request) + item.request.max_tokens


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
