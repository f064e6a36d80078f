"""Commits of many requests at once: one wait for the disk serves everything that came in meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from sage_trl.llm_client.ledger import Ledger

Result = TypeVar("Result")
Job = tuple[Callable[[], Any], asyncio.Future[Any] | None]


class GroupCommitter:
    """Runs changes to a ledger, all that are waiting in one transaction.

    The changes run in the event loop, for they take microseconds and a thread would wait for the interpreter at each of
    their statements; only the wait for the disk has a thread. The ledger is used by nobody else until `stop`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._jobs: list[Job] = []
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._working: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def stop(self) -> None:
        """Commit what is waiting, and end the thread.

        Raises:
            DataError: some change could not be written.
        """
        self._start()
        if self._working is not None:
            await self._working
        self._disk.shutdown()
        if self._error is not None:
            raise self._error

    async def commit(self, change: Callable[[], Result]) -> Result:
        """Run `change`; when this returns its effect is on the disk.

        Raises:
            DataError: it could not be written.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.append((change, future))
        self._start()
        return await future

    def later(self, change: Callable[[], Any]) -> None:
        """Run `change` with the next commit, or at `stop`, which tells whether it was written."""
        self._jobs.append((change, None))

    def _start(self) -> None:
        if self._jobs and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._jobs:
            group, self._jobs = self._jobs, []
            futures = [future for _, future in group]
            try:
                results = await self._run(group)
            except Exception as error:  # every waiter learns of it, and so does `stop`
                self._error = error
                for future in futures:
                    if future is not None and not future.done():
                        future.set_exception(error)
                continue
            for future, result in zip(futures, results, strict=True):
                if future is not None and not future.done():
                    future.set_result(result)

    async def _run(self, group: list[Job]) -> list[Any]:
        with ExitStack() as transaction:
            transaction.enter_context(self._ledger.transaction())
            results = [change() for change, _ in group]
            to_disk = transaction.pop_all().close
        await asyncio.get_running_loop().run_in_executor(self._disk, to_disk)
        return results
