"""From requests to answers, as the tools do it: plan, show what it costs, let the user decide, send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from sage_trl.llm_client.client import check_base_url, in_one_line, read_api_key
from sage_trl.llm_client.cost import Prices
from sage_trl.llm_client.plan import Parse, Plan, make_plan
from sage_trl.llm_client.request import ChatRequest
from sage_trl.llm_client.runner import RunResult, run_plan
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost

SHOWN = 10  # requests without a value that are told one by one


def check_service(options: ServiceOptions) -> None:
    """Find the mistakes that would otherwise show once much is done.

    Raises:
        SageError: no URL, no key, a cap whose prices are unknown.
    """
    check_base_url(options.base_url)
    options.prices()
    if not options.dry_run:
        read_api_key(options.base_url)


def ask(
    requests: Sequence[ChatRequest], parse: Parse, parser: str, options: ServiceOptions, task: str, console: Console
) -> RunResult | None:
    """Ask what the cache file does not know yet.

    Args:
        requests: what to ask; equal ones are asked once.
        parse: from the text of a reply to a value that JSON can hold; raises `UnreadableError`.
        parser: its name and version.
        options: server, limits, money, and whether to ask the user.
        task: what it is for, as in "to judge".
        console: where the plan is shown.

    Returns:
        What came back, or None for a dry run.

    Raises:
        SageError: the user does not want it, or an image cannot be read. What ends the run is `RunResult.stopped`.
    """
    settings = options.settings(parser)
    with open_ledger(options) as ledger:
        plan = make_plan(requests, parse, settings, ledger)
        show_plan(plan, ledger.spent(), settings.prices, task, console)
        if options.dry_run:
            return None
        if plan.pending and not options.yes:
            ask_to_send()
        if options.batch:
            from sage_trl.llm_client.batch import run_batches  # noqa: PLC0415

            return run_batches(plan, parse, settings, ledger)
        return run_plan(plan, parse, settings, ledger)


def show_plan(plan: Plan, spent: int, prices: Prices, task: str, console: Console) -> None:
    """How much is to be asked, and what it may cost beside the `spent` nano-dollars of earlier runs."""
    console.print(
        f"to {task}: {len(plan.pending):,} ({plan.cached:,} cached, {len(plan.quarantined):,} in quarantine), about "
        f"{plan.estimate.prompt_tokens:,} + {plan.estimate.reply_tokens:,} tokens",
        soft_wrap=True,
    )
    show_cost(plan.estimate.expected, plan.estimate.worst, spent, prices, console)


def show_unanswered(result: RunResult, place: Callable[[int], str], console: Console) -> None:
    """The first few requests without a value, and why; `place` names a request by its row."""
    for title, reasons in (("in quarantine", result.quarantined), ("unknown", result.unknown)):
        for row, reason in list(reasons.items())[:SHOWN]:
            console.print(f"{title}: {in_one_line(place(row))}: {reason[:200]!r}", soft_wrap=True, markup=False)
