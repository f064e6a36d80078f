"""What an evaluation may have to pay servers, shown and agreed on before the first reply is generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.evaluation.controls import Row
from sage_trl.evaluation.model_judging import ReplyJudge
from sage_trl.evaluation.opening import ModelPlan, controls_for
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.evaluation.predictions import is_conversation
from sage_trl.evaluation.questions import build_questions
from sage_trl.llm_client.plan import Estimate
from sage_trl.llm_client.service import ServiceOptions, ask_to_send, open_ledger, show_cost


class Charge(NamedTuple):
    """What one task may cost at one server, if nothing of it is in the cache file yet."""

    task: str
    estimate: Estimate
    service: ServiceOptions


def find_charges(
    plans: Sequence[ModelPlan], judge: ReplyJudge | None, directory: AdPlDirectory, options: EvaluationOptions
) -> Iterator[Charge]:
    """What the user has to agree to: the replies of served models, and the judgement of all replies.

    Raises:
        DataError: the dataset lacks what a setting or a control needs.
    """
    for plan in plans:
        if plan.served is not None and options.service is not None:
            yield Charge(
                f"ask {plan.name}", plan.served.estimate(list(_rows(plan, directory, options))), options.service
            )
    if judge is not None and options.judge_service is not None:
        inspections = [row for split in options.splits for row in directory.select(splits=[split])[: options.limit]]
        times = sum(len(controls_for(plan, options)) * len(options.settings) for plan in plans)
        yield Charge("judge", judge.estimate(inspections, times), options.judge_service)


def _rows(plan: ModelPlan, directory: AdPlDirectory, options: EvaluationOptions) -> Iterator[Row]:
    """All that a served model will be asked; in conversations the best answers stand in for replies to come."""
    for control, setting, split in product(controls_for(plan, options), options.settings, options.splits):
        earlier: dict[str, list[tuple[str, str]]] = {}
        for item in build_questions(
            directory,
            None,
            split=split,
            setting=setting,
            control=control,
            limit=options.limit,
            seed=options.seed,
            identity={},
        ):
            turns = earlier.setdefault(item.inspection.id, [])
            yield item.after(turns).row if turns else item.row
            if is_conversation(setting):
                turns.append((item.question.question, item.question.answers[0]))


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
