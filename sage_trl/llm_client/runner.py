"""Sends many requests at once, and ends well: complete, at the cap, or on a signal with everything saved."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sage_trl.errors import SageError, StoppedError
from sage_trl.llm_client.client import Kind, Outcome
from sage_trl.llm_client.cost import Budget
from sage_trl.llm_client.display import Display
from sage_trl.llm_client.ledger import Ledger, StoredAnswer
from sage_trl.llm_client.limits import backoff
from sage_trl.llm_client.plan import OTHER_WAYS, Item, Parse, Plan, RunSettings, make_plan, read_value
from sage_trl.llm_client.replies import UnreadableError
from sage_trl.llm_client.request import ChatRequest, without_credentials
from sage_trl.llm_client.sender import Claimed, Sender

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


class _Run:
    """One run: workers that take items from a queue, each through as many attempts as it needs."""

    def __init__(self, plan: Plan, parse: Parse, settings: RunSettings, ledger: Ledger) -> None:
        self._parse, self._settings, self._ledger = parse, settings, ledger
        self._waiting = deque(plan.pending)
        self._budget = Budget(settings.max_cost, ledger.spent())
        self._result = RunResult(plan.values, dict(plan.quarantined), {}, plan.cached, 0, self._budget.spent)
        self._display = Display(plan, self._result, self._budget, settings.quiet)
        self._workers: list[asyncio.Task[None]] = []
        self._signals = 0
        self._has_said_not_sent = False

    async def run(self) -> RunResult:
        if not self._waiting:
            return self._result
        self._sender = Sender(self._settings, self._ledger, self._budget, self._waiting)
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            with self._display:
                count = min(self._settings.concurrency, len(self._waiting))
                self._workers = [asyncio.create_task(self._work()) for _ in range(count)]
                await self._all_workers()
        finally:
            try:
                await self._sender.close()
            except SageError as error:
                self._result.stopped = error
            for number, handler in handlers.items():  # asyncio would leave the default, which ends us without a word
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
        self._result.asked = self._sender.asked
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
            if worker not in self._sender.busy and worker is not asyncio.current_task():
                worker.cancel()

    async def _work(self) -> None:
        try:
            await self._take_items()
        except SageError as error:
            self._stop(error)
        except Exception:  # a fault of ours: drain, or those who wait for this one's reservation wait for ever
            self._stop(SageError("stopped by a fault of the program; everything received is saved"))
            raise

    async def _take_items(self) -> None:
        claimed: Claimed | None = None
        try:
            while claimed is not None or self._waiting:
                if claimed is None:
                    claimed = await self._sender.claim(self._waiting.popleft())
                if self._result.stopped is not None:
                    return
                sent, claimed = claimed, None
                outcome, answer, claimed = await self._sender.send(sent)
                await self._deal_with(sent.item, outcome, answer)
        finally:
            if claimed is not None:
                await self._sender.give_back(claimed)

    async def _deal_with(self, item: Item, outcome: Outcome, answer: StoredAnswer | None) -> None:
        """After an attempt the item has its value, will have none, or waits for another attempt."""
        if answer is not None:
            if not self._read(item, answer):
                self._ask_again(item)
        elif item.can_be_asked_otherwise(outcome.kind):
            self._sender.refused.add(outcome.kind)
            self._ask_again(item)
        elif outcome.kind is Kind.REFUSED or outcome.kind in OTHER_WAYS:
            self._quarantine(item, f"refused: {outcome.text}", outcome.text)
        else:
            await self._wait_or_leave(item, outcome)

    async def _wait_or_leave(self, item: Item, outcome: Outcome) -> None:
        """After an attempt without an answer."""
        item.unknown += outcome.kind is Kind.UNKNOWN
        item.free += outcome.kind is not Kind.UNKNOWN
        if item.unknown > UNKNOWN_RETRIES or item.free > FREE_RETRIES:
            self._result.unknown.update(dict.fromkeys(item.rows, f"{outcome.kind.value}: {outcome.text}"))
            return
        if outcome.kind is Kind.NOT_SENT and not self._has_said_not_sent:
            self._has_said_not_sent = True
            server = without_credentials(self._settings.base_url)
            self._display.note(f"{server} cannot be reached, trying again: {outcome.text}")
        if self._result.stopped is None:
            await asyncio.sleep(backoff(item.unknown + item.free - 1))
        self._ask_again(item)

    def _ask_again(self, item: Item) -> None:
        if self._result.stopped is None:
            self._waiting.appendleft(item)

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
        self._sender.later(partial(self._ledger.parsed, item.key, parser, answer, json.dumps(value)))
        for row in item.rows:
            self._result.values[row] = value
        self._display.update()
        return True

    def _quarantine(self, item: Item, reason: str, raw: str) -> None:
        self._sender.later(partial(self._ledger.quarantine, item.key, self._settings.parser, reason, raw))
        self._result.quarantined.update(dict.fromkeys(item.rows, reason))
        self._display.update()
