"""What an evaluation may have to pay servers, shown and agreed on before the first reply is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from sage_trl.llm_client.plan import Estimate
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost


class Charge(NamedTuple):
    """What one task may cost at one server, if nothing of it is in the cache file yet."""

    task: str
    estimate: Estimate
    service: ServiceOptions


def agree_on_cost(charges: Sequence[Charge], quiet: bool) -> None:
    """Show every charge and, unless it is for a dry run, let the user decide.

    Raises:
        SageError: the user does not want it.
    """
    console = Console(stderr=True, quiet=quiet)
    for task, cost, service in charges:
        console.print(
            f"to {task}: at most {cost.requests:,}, about {cost.prompt_tokens:,} + {cost.reply_tokens:,} tokens",
            soft_wrap=True,
        )
        with open_ledger(service) as ledger:
            show_cost(cost.expected, cost.worst, ledger.spent(), service.prices(), console)
    if any(not charge.service.dry_run and not charge.service.yes for charge in charges):
        ask_to_send()
