"""What an evaluation will pay for, shown and agreed on before the first reply is generated."""

from __future__ import annotations

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.evaluation.model_judging import ReplyJudge
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost


def agree_on_judge(
    judge: ReplyJudge, service: ServiceOptions, directory: AdPlDirectory, options: EvaluationOptions, times: int
) -> None:
    """Show what judging may cost and, unless this is a dry run, let the user decide.

    Args:
        judge: who judges.
        service: where, and at what price.
        directory: the dataset.
        options: of the evaluation.
        times: how many replies each question gets, over all models, settings and controls.

    Raises:
        SageError: the user does not want it.
    """
    console = Console(stderr=True, quiet=options.quiet)
    inspections = [row for split in options.splits for row in directory.select(splits=[split])[: options.limit]]
    cost = judge.estimate(inspections, times)
    console.print(
        f"to judge: at most {cost.requests:,}, about {cost.prompt_tokens:,} + {cost.reply_tokens:,} tokens",
        soft_wrap=True,
    )
    with open_ledger(service) as ledger:
        show_cost(cost.expected, cost.worst, ledger.spent(), service.prices(), console)
    if not options.dry_run and not service.yes:
        ask_to_send()
