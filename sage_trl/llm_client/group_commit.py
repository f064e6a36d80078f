"""Commits of many requests at once: one wait for the disk serves everything that came in meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sage_trl.llm_client.ledger import Ledger

Result = TypeVar("Result")
Job = tuple[Callable[[], Any], asyncio.Future[Any] | None]


class GroupCommitter:
    """Runs changes to a ledger in a thread, all that are waiting in one transaction.

    The thread has the ledger to itself from `start` to `stop`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._error: Exception | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Commit what is waiting, and end the thread.

        Raises:
            DataError: some change could not be written.
        """
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._error is not None:
            raise self._error

    async def commit(self, change: Callable[[], Result]) -> Result:
        """Run `change`; when this returns its effect is on the disk.

        Raises:
            DataError: it could not be written.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._jobs.put((change, future))
        return await future

    def later(self, change: Callable[[], Any]) -> None:
        """Run `change` with the next group; whether it was written is known after `stop`."""
        self._jobs.put((change, None))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            group = [job]
            ends = False
            while not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    ends = True
                    break
                group.append(following)
            self._run(group)
            if ends:
                return

    def _run(self, group: list[Job]) -> None:
        results: list[Any] = []
        try:
            with self._ledger.transaction():
                results.extend(change() for change, _ in group)
        except Exception as error:  # every waiter learns of it, and so does `stop`
            self._error = error
            self._loop.call_soon_threadsafe(_fail, [future for _, future in group if future], error)
            return
        done = [(future, result) for (_, future), result in zip(group, results, strict=True) if future]
        if done:
            self._loop.call_soon_threadsafe(_resolve, done)


def _fail(futures: list[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _resolve(done: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in done:
        if not future.done():
            future.set_result(result)
