"""One run of tools/score_mle.py with a language model as judge: plan, ask the user, send, write, report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.errors import DataError, SageError
from sage_trl.judge.canaries import canary_judgements
from sage_trl.judge.model_judge import (
    AnswerScores,
    JudgementOptions,
    collect,
    dataset_judgements,
    judge_name,
    score_rows,
)
from sage_trl.judge.prompts import PARSER, Judgement, parse_judgement
from sage_trl.judge.scorer import merge_scores
from sage_trl.llm_client.client import OPENAI_URL, check_base_url, in_one_line, read_api_key
from sage_trl.llm_client.cost import BATCH_DISCOUNT, NANO, Prices, dollars, find_prices
from sage_trl.llm_client.ledger import Ledger
from sage_trl.llm_client.plan import Plan, RunSettings, make_plan
from sage_trl.llm_client.request import without_credentials
from sage_trl.llm_client.runner import RunResult, run_plan
from sage_trl.records import Inspection, JudgeScore
from sage_trl.storage import write_jsonl

if TYPE_CHECKING:
    from sage_trl.judge.report_figures import HumanScores

INCOMPLETE = 3  # exit code


@dataclass(frozen=True)
class ScoringOptions:
    """What `tools/score_mle.py --judge openai` takes, see its help."""

    model: str
    base_url: str
    cache: Path
    output: Path
    judgements: JudgementOptions
    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_cost: float | None = None
    price_input: float | None = None
    price_output: float | None = None
    seconds: float = 120.0
    batch: bool = False
    dry_run: bool = False
    yes: bool = False
    retry_quarantined: bool = False
    report: Path | None = None
    human_scores: Path | None = None
    quiet: bool = False
    merges: bool = False

    def prices(self) -> Prices:
        """USD per million tokens.

        Raises:
            SageError: a cap without prices would hold nothing.
        """
        is_openai = without_credentials(self.base_url) == OPENAI_URL
        prices = find_prices(self.model, is_openai, self.price_input, self.price_output)
        if self.max_cost is not None and prices.worst_rate() == 0:
            raise SageError(
                f"--max-cost {self.max_cost:g}: the price of {self.model!r} is unknown\n"
                "  remedy: give --price-input and --price-output in USD per million tokens"
            )
        return prices.scaled(BATCH_DISCOUNT) if self.batch else prices

    def settings(self) -> RunSettings:
        """For the client."""
        return RunSettings(
            base_url=self.base_url,
            parser=PARSER,
            prices=self.prices(),
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_cost=None if self.max_cost is None else int(self.max_cost * NANO),
            seconds=self.seconds,
            retry_quarantined=self.retry_quarantined,
            quiet=self.quiet,
        )


def score_with_model(ad_pl: AdPlDirectory, inspections: Sequence[Inspection], options: ScoringOptions) -> int:
    """Score all ranked answers; returns the exit code.

    Raises:
        SageError: a mistake, or what ended the run early once everything received is in `scores.jsonl`.
    """
    console = Console(quiet=options.quiet, stderr=True)
    settings = options.settings()
    people = _check(ad_pl, inspections, options)
    asked = list(dataset_judgements(ad_pl, inspections, options.judgements))
    canaries = list(canary_judgements([judgement for _, judgement in asked])) if options.report else []
    everything: list[Judgement] = [judgement for _, judgement in asked] + [judgement for _, judgement in canaries]
    requests = [judgement.request(options.model) for judgement in everything]
    with _open_ledger(options) as ledger:
        plan = make_plan(requests, parse_judgement, settings, ledger)
        _show_plan(plan, ledger.spent(), settings.prices, console)
        if options.dry_run:
            return 0
        if plan.pending and not options.yes:
            _ask()
        if options.batch:
            from sage_trl.llm_client.batch import run_batches  # noqa: PLC0415

            result = run_batches(plan, parse_judgement, settings, ledger)
        else:
            result = run_plan(plan, parse_judgement, settings, ledger)
    answers = collect(asked, result.values)
    rows = _write(ad_pl, inspections, answers, options)
    _show_result(result, rows, len(answers), everything, options.output, console)
    if options.report:
        from sage_trl.judge.report import write_report  # noqa: PLC0415

        caught = [(kind, value) for (kind, _), value in zip(canaries, result.values[len(asked) :], strict=True)]
        write_report(options.report, answers, caught, judge_name(options.model), people)
        console.print(f"report: {options.report}", soft_wrap=True, markup=False)
    if result.stopped is not None:
        raise result.stopped
    return INCOMPLETE if result.quarantined or result.unknown else 0


def _check(ad_pl: AdPlDirectory, inspections: Sequence[Inspection], options: ScoringOptions) -> HumanScores | None:
    """Find the mistakes that would otherwise show once everything is paid; returns the human scores, if any.

    Raises:
        SageError: no URL, no key, faulty human scores, a report over its own figures, scores that must not be mixed.
    """
    check_base_url(options.base_url)
    if not options.dry_run:
        read_api_key(options.base_url)
    if options.human_scores is not None and options.report is None:
        raise SageError("--human-scores without --report\n  remedy: give --report FILE.html too")
    if options.report is not None and options.report.suffix == ".json":
        raise SageError(f"--report {options.report}: its figures go there\n  remedy: give a name that ends in .html")
    if options.merges:
        merge_scores(options.output, [], ad_pl.inspections, judge_name(options.model), _ids(inspections))
    if options.human_scores is None:
        return None
    from sage_trl.judge.report_figures import read_human_scores  # noqa: PLC0415

    return read_human_scores(options.human_scores)


def _ids(inspections: Sequence[Inspection]) -> set[str]:
    return {inspection.id for inspection in inspections}


@contextmanager
def _open_ledger(options: ScoringOptions) -> Iterator[Ledger]:
    if options.dry_run and not options.cache.exists():
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "empty.sqlite") as ledger:
            yield ledger
        return
    with Ledger(options.cache) as ledger:
        yield ledger


def _show_plan(plan: Plan, spent: int, prices: Prices, console: Console) -> None:
    console.print(
        f"to judge: {len(plan.pending):,} ({plan.cached:,} cached, {len(plan.quarantined):,} in quarantine), about "
        f"{plan.prompt_tokens:,} + {plan.reply_tokens:,} tokens",
        soft_wrap=True,
    )
    if prices.worst_rate() == 0:
        console.print("cost: unknown; give --price-input and --price-output in USD per million tokens", soft_wrap=True)
        return
    console.print(
        f"cost: about {dollars(plan.expected)}, at most {dollars(plan.worst)} if each is asked once; "
        f"spent before: {dollars(spent)}",
        soft_wrap=True,
    )


def _ask() -> None:
    if not sys.stdin.isatty():
        raise SageError("nobody is there to be asked\n  remedy: give --yes to send, or --dry-run to see the cost only")
    sys.stderr.write("send? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SageError("nothing was sent\n  remedy: answer y, or give --yes")


def _write(
    ad_pl: AdPlDirectory, inspections: Sequence[Inspection], answers: Sequence[AnswerScores], options: ScoringOptions
) -> list[JudgeScore]:
    judge = judge_name(options.model)
    rows = list(score_rows(answers, judge))
    if not rows and options.output.exists():  # a run that failed at once must not wipe out earlier scores
        return rows
    asked = _ids(inspections)
    kept = merge_scores(options.output, rows, ad_pl.inspections, judge, asked) if options.merges else rows
    try:
        write_jsonl(options.output, (row.model_dump(mode="json") for row in kept))
    except OSError as error:
        problem, remedy = f"cannot be written: {error.strerror}", "mend that and give the same command: all is cached"
        raise DataError.at(options.output, None, problem, remedy) from None
    return rows


def _show_result(
    result: RunResult, rows: Sequence[Any], total: int, asked: Sequence[Judgement], output: Path, console: Console
) -> None:
    for title, reasons in (("in quarantine", result.quarantined), ("unknown", result.unknown)):
        for row, reason in list(reasons.items())[:10]:
            judged = asked[row]
            place = in_one_line(f"{judged.inspection.id}/{judged.question.id} answer {judged.answer[:40]!r}")
            console.print(f"{title}: {place}: {reason[:200]!r}", soft_wrap=True, markup=False)
    done = "written" if rows or not total else "nothing scored, left as it is"
    console.print(
        f"{done}: {output} ({len(rows)} of {total} answers scored, {len(result.quarantined)} in quarantine, "
        f"{len(result.unknown)} unknown, {result.asked} requests sent, {dollars(result.spent)} spent)",
        soft_wrap=True,
        markup=False,
    )
