"""Sends many requests at once, and ends well: complete, at the cap, or on a signal with everything saved."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sage_trl.errors import SageError, StoppedError
from sage_trl.llm_client.client import ChatClient, Kind, Outcome, ServiceError, in_one_line, read_usage
from sage_trl.llm_client.cost import Budget, CostCapError, dollars
from sage_trl.llm_client.display import Display
from sage_trl.llm_client.group_commit import GroupCommitter
from sage_trl.llm_client.ledger import Ledger, StoredAnswer
from sage_trl.llm_client.limits import AdaptiveConcurrency, TokenBucket, backoff
from sage_trl.llm_client.plan import (
    OTHER_WAYS,
    Item,
    Parse,
    Plan,
    RunSettings,
    expected_prompt_tokens,
    make_plan,
    read_value,
)
from sage_trl.llm_client.replies import UnreadableError
from sage_trl.llm_client.request import ChatRequest

UNKNOWN_RETRIES = 2  # time-outs and drops: each may have been paid
FREE_RETRIES = 12  # refusals and connections that failed: none was paid
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class RunResult:
    """What a run has.

    Attributes:
        values: the value of each request, in the caller's order; None where there is none.
        quarantined: row -> why it has none and will have none.
        unknown: row -> why it has none; the next run asks again.
        cached: rows that cost nothing in this run.
        asked: attempts of this run.
        spent: nano-dollars in the ledger, uncertain attempts at their worst case.
        stopped: why the run ended early, to be raised once the values are saved; None if it did not.
    """

    values: list[Any]
    quarantined: dict[int, str]
    unknown: dict[int, str]
    cached: int
    asked: int
    spent: int
    stopped: SageError | None = None


def run_requests(requests: Sequence[ChatRequest], parse: Parse, settings: RunSettings, ledger: Ledger) -> RunResult:
    """Ask what the ledger does not know yet.

    Args:
        requests: what to ask; equal ones are asked once.
        parse: from the text of a reply to a value that JSON can hold; raises `UnreadableError`.
        settings: server, limits and money.
        ledger: cache and account book.

    Raises:
        DataError: an image cannot be read. Everything else that ends a run early is `RunResult.stopped`.
    """
    return run_plan(make_plan(requests, parse, settings, ledger), parse, settings, ledger)


def run_plan(plan: Plan, parse: Parse, settings: RunSettings, ledger: Ledger) -> RunResult:
    """`run_requests` for a plan that was made, and perhaps shown, before.

    Raises:
        SageError: some of the requests are in a batch under way, and would be paid twice.
    """
    if twice := ledger.in_batches() & {item.key for item in plan.pending}:
        problem = f"{ledger.path}: {len(twice):,} of the requests are in a batch under way, and would be paid twice"
        raise SageError(f"{problem}\n  remedy: give --batch, which fetches its answers")
    return asyncio.run(_Run(plan, parse, settings, ledger).run())


class _StopWorkerError(Exception):
    """This worker ends, because the run does."""


class _Run:
    """One run: workers that take items from a queue, each through as many attempts as it needs."""

    def __init__(self, plan: Plan, parse: Parse, settings: RunSettings, ledger: Ledger) -> None:
        self._parse, self._settings, self._ledger = parse, settings, ledger
        self._waiting = deque(plan.pending)
        self._budget = Budget(settings.max_cost, ledger.spent())
        self._result = RunResult(plan.values, dict(plan.quarantined), {}, plan.cached, 0, self._budget.spent)
        self._display = Display(plan, self._result, self._budget, settings.quiet)
        self._workers: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[Any]] = set()
        self._refused: set[Kind] = set()  # what this server does not know
        self._in_a_row = 0  # attempts without an answer
        self._signals = 0

    async def run(self) -> RunResult:
        if not self._waiting:
            return self._result
        settings = self._settings
        self._limit = AdaptiveConcurrency(settings.concurrency)
        self._requests = TokenBucket(settings.requests_per_minute)
        self._tokens = TokenBucket(settings.tokens_per_minute)
        self._settled = asyncio.Event()
        self._client = ChatClient(settings.base_url, settings.seconds)
        self._committer = GroupCommitter(self._ledger)
        self._committer.start()
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            with self._display:
                count = min(settings.concurrency, len(self._waiting))
                self._workers = [asyncio.create_task(self._work()) for _ in range(count)]
                await self._all_workers()
        finally:
            try:
                await self._committer.stop()
            except SageError as error:
                self._result.stopped = error
            await self._client.close()
            for number, handler in handlers.items():  # asyncio would leave the default, which ends us without a word
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
        self._result.spent = self._budget.spent + self._budget.reserved
        return self._result

    async def _all_workers(self) -> None:
        ended = await asyncio.gather(*self._workers, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _signalled(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:  # nothing is waited for
            for worker in self._workers:
                worker.cancel()
            return
        self._display.note("stopping: waiting for what is in flight; once more to leave at once")
        self._stop(StoppedError(f"stopped by {signal.Signals(number).name}; everything received is saved", number))

    def _stop(self, reason: SageError) -> None:
        """Send nothing more; what is in flight is waited for."""
        if self._result.stopped is None:
            self._result.stopped = reason
        self._waiting.clear()
        for worker in self._workers:
            if worker not in self._sending and worker is not asyncio.current_task():
                worker.cancel()

    async def _work(self) -> None:
        while self._waiting:
            item = self._waiting.popleft()
            try:
                await self._settle(item)
            except _StopWorkerError:
                return
            except SageError as error:
                self._stop(error)
                return
            except Exception:  # a fault of ours: drain, or those who wait for this one's reservation wait for ever
                self._stop(SageError("stopped by a fault of the program; everything received is saved"))
                raise

    async def _settle(self, item: Item) -> None:
        """Attempts at one item until it has a value or will have none."""
        unknown = free = 0
        while True:
            outcome, answer = await self._attempt(item)
            if answer is not None and self._read(item, answer):
                return
            if item.can_be_asked_otherwise(outcome.kind):
                self._refused.add(outcome.kind)
                if self._result.stopped is not None:
                    raise _StopWorkerError
                continue
            if outcome.kind is Kind.REFUSED or outcome.kind in OTHER_WAYS:
                self._quarantine(item, f"refused: {outcome.text}", outcome.text)
                return
            unknown += outcome.kind is Kind.UNKNOWN
            free += outcome.kind in (Kind.RATE_LIMITED, Kind.NOT_SENT)
            if unknown > UNKNOWN_RETRIES or free > FREE_RETRIES:
                self._result.unknown.update(dict.fromkeys(item.rows, f"{outcome.kind.value}: {outcome.text}"))
                return
            if self._result.stopped is not None:
                raise _StopWorkerError
            if answer is None:
                await asyncio.sleep(backoff(unknown + free - 1))

    async def _attempt(self, item: Item) -> tuple[Outcome, StoredAnswer | None]:
        item.ask_otherwise(self._refused, self._settings.base_url)
        await self._limit.acquire()
        try:
            await self._requests.take(1)
            await self._tokens.take(expected_prompt_tokens(item.request) + item.request.max_tokens)
            body = item.request.body()
            worst = self._settings.prices.worst_case(item.request)
            await self._reserve(worst)
            task = asyncio.current_task()
            assert task is not None
            self._sending.add(task)
            try:
                return await self._send(item.key, body, worst)
            finally:
                self._sending.discard(task)
        finally:
            self._limit.release()

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

    async def _send(self, key: str, body: dict[str, Any], worst: int) -> tuple[Outcome, StoredAnswer | None]:
        claim = await self._committer.commit(partial(self._ledger.claim, key, worst))
        self._result.asked += 1
        try:
            outcome = await self._client.send(body)
        except SageError as error:
            await self._committer.commit(partial(self._ledger.failed, claim, str(error), may_be_paid=False))
            self._settle_cost(worst, 0)
            raise
        if outcome.kind is Kind.ANSWERED:
            usage = read_usage(outcome.text)
            cost = worst if usage is None else self._settings.prices.cost(*usage)
            answer = await self._committer.commit(partial(self._ledger.answered, claim, outcome.text, cost, usage))
            self._settle_cost(worst, cost)
            self._limit.answered()
            self._in_a_row = 0
            return outcome, answer
        may_be_paid = outcome.kind is Kind.UNKNOWN
        await self._committer.commit(partial(self._ledger.failed, claim, outcome.text, may_be_paid=may_be_paid))
        self._settle_cost(worst, worst if may_be_paid else 0)
        self._note_failure(outcome)
        return outcome, None

    def _settle_cost(self, worst: int, cost: int) -> None:
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

    def _read(self, item: Item, answer: StoredAnswer) -> bool:
        """Whether the item is done: its answer was read, or was the last that may be unreadable."""
        parser = self._settings.parser
        try:
            value = read_value(item.request, answer.body, self._parse)
        except UnreadableError as error:
            item.unreadable += 1
            if item.unreadable < self._settings.tries:
                return False
            self._quarantine(item, f"{item.unreadable} unreadable answers, the last: {error}", answer.body)
            return True
        self._later(partial(self._ledger.parsed, item.key, parser, answer, json.dumps(value)))
        for row in item.rows:
            self._result.values[row] = value
        self._display.update()
        return True

    def _quarantine(self, item: Item, reason: str, raw: str) -> None:
        self._later(partial(self._ledger.quarantine, item.key, self._settings.parser, reason, raw))
        self._result.quarantined.update(dict.fromkeys(item.rows, reason))
        self._display.update()

    def _later(self, change: Callable[[], Any]) -> None:
        self._committer.later(change)
