"""How fast requests may go: token buckets per minute, and a concurrency that adapts to what the server bears."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

GROWTH = 1.0  # by how much the limit grows per `limit` answers
SHRINK = 0.5
SHRINK_PAUSE = 1.0  # seconds in which further refusals are taken for the same event
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0


class TokenBucket:
    """Lets `per_minute` units pass per minute, starting with a tenth of them at once.

    Waiters are served in order.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._capacity = 0.0 if per_minute is None else max(1.0, per_minute / 10)
        self._level = self._capacity
        self._updated = time.monotonic()

    async def take(self, amount: float) -> None:
        """Wait until `amount` may pass. An amount above the capacity goes into debt, which later takers wait off."""
        if (pause := self.draw(amount)) > 0:
            await asyncio.sleep(pause)

    def draw(self, amount: float) -> float:
        """Let `amount` pass; returns the seconds that it has to wait before."""
        if self._rate is None:
            return 0.0
        self._refill(self._rate)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def has(self, amount: float) -> bool:
        """Whether `amount` may pass without waiting."""
        if self._rate is None:
            return True
        self._refill(self._rate)
        return self._level >= amount

    def _refill(self, rate: float) -> None:
        now = time.monotonic()
        self._level = min(self._capacity, self._level + (now - self._updated) * rate)
        self._updated = now


class AdaptiveConcurrency:
    """At most `limit` requests at a time: halved by a refusal, and one more after every `limit` answers.

    A Retry-After stops all requests until its time is over.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limit = float(maximum)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._last_shrink = 0.0

    async def acquire(self) -> None:
        """Wait for a place."""
        while True:
            pause = self._paused_until - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            if self.in_flight < int(self.limit):
                self.in_flight += 1
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def may_stay(self) -> bool:
        """Whether a request may have the place of the one before it, with nobody waiting longer."""
        return not self._waiting and self.in_flight <= int(self.limit) and time.monotonic() >= self._paused_until

    def release(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        free = int(self.limit) - self.in_flight
        while self._waiting and free > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1

    def answered(self) -> None:
        """An answer came: the server bears this much."""
        if self.limit < self.maximum:
            self.limit = min(float(self.maximum), self.limit + GROWTH / self.limit)

    def refused(self, retry_after: float | None) -> None:
        """The server asks for less; for `retry_after` seconds it asks for nothing at all."""
        now = time.monotonic()
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + retry_after)
        if now - self._last_shrink > SHRINK_PAUSE:
            self.limit = max(1.0, self.limit * SHRINK)
            self._last_shrink = now


def backoff(attempt: int) -> float:
    """Seconds before trying again, doubling from the first attempt (0) and spread by chance."""
    return random.uniform(0.5, 1.0) * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0**attempt)
