"""What a user sees of a run under way, on stderr: a live line on a terminal, one line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sage_trl.llm_client.cost import Budget, dollars
from sage_trl.llm_client.plan import Plan

if TYPE_CHECKING:
    from sage_trl.llm_client.runner import RunResult

LIVE_SECONDS, PLAIN_SECONDS = 0.25, 30.0


class Display:
    """Done, cached, quarantined, unknown, spent, rate and time left."""

    def __init__(self, plan: Plan, result: RunResult, budget: Budget, quiet: bool) -> None:
        self._result, self._budget = result, budget
        self._total, self._quarantined_before = len(plan.values), len(plan.quarantined)
        self._console = Console(stderr=True, quiet=quiet)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._shows_live() else None
        self._started = self._shown = time.monotonic()
        self._done = 0

    def _shows_live(self) -> bool:
        return self._console.is_terminal and not self._console.quiet

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """One request more has its value, or its place in quarantine."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown < (PLAIN_SECONDS if self._live is None else LIVE_SECONDS):
            return
        self._shown = now
        if self._live is None:
            self._console.print(self.line(), soft_wrap=True)
        else:
            self._live.update(Text(self.line()), refresh=True)

    def note(self, text: str) -> None:
        """Say something beside the line."""
        self._console.print(Text(text), soft_wrap=True)

    def line(self) -> str:
        """The line that is shown."""
        result = self._result
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        in_quarantine, unknown = len(result.quarantined), len(result.unknown)
        done = result.cached + self._done - (in_quarantine - self._quarantined_before)
        left = max(0, self._total - done - in_quarantine - unknown)
        seconds = left / rate if rate else 0.0
        return (
            f"{done:,}/{self._total:,} done, {result.cached:,} cached, {in_quarantine:,} in quarantine, "
            f"{unknown:,} unknown, {dollars(self._budget.spent)} spent, {rate:.1f}/s, "
            f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f} left"
        )
