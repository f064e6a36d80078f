"""One run of tools/score_mle.py with a language model as judge: plan, ask the user, send, write, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.errors import INCOMPLETE, DataError, SageError
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
from sage_trl.llm_client.asking import ask, check_service, show_unanswered
from sage_trl.llm_client.cost import dollars
from sage_trl.llm_client.runner import RunResult
from sage_trl.llm_client.service import ServiceOptions
from sage_trl.records import Inspection, JudgeScore
from sage_trl.storage import write_jsonl

if TYPE_CHECKING:
    from sage_trl.judge.report_figures import HumanScores


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(ServiceOptions):
    """What `tools/score_mle.py --judge openai` takes, see its help."""

    output: Path
    judgements: JudgementOptions
    report: Path | None = None
    human_scores: Path | None = None
    merges: bool = False


def score_with_model(ad_pl: AdPlDirectory, inspections: Sequence[Inspection], options: ScoringOptions) -> int:
    """Score all ranked answers; returns the exit code.

    Raises:
        SageError: a mistake, or what ended the run early once everything received is in `scores.jsonl`.
    """
    console = Console(quiet=options.quiet, stderr=True)
    people = _check(ad_pl, inspections, options)
    asked = list(dataset_judgements(ad_pl, inspections, options.judgements))
    canaries = list(canary_judgements([judgement for _, judgement in asked])) if options.report else []
    everything: list[Judgement] = [judgement for _, judgement in asked] + [judgement for _, judgement in canaries]
    requests = [judgement.request(options.model, options.judgements.max_tokens) for judgement in everything]
    result = ask(requests, parse_judgement, PARSER, options, "judge", console)
    if result is None:
        return 0
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
        SageError: no server to ask, no price, faulty human scores, a report over its own figures, scores that must not
            be mixed.
    """
    check_service(options)
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


def _write(
    ad_pl: AdPlDirectory, inspections: Sequence[Inspection], answers: Sequence[AnswerScores], options: ScoringOptions
) -> list[JudgeScore]:
    judge = judge_name(options.model)
    rows = list(score_rows(answers, judge))
    if not rows:  # a run that failed at once must not wipe out earlier scores
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
    show_unanswered(
        result,
        lambda row: f"{asked[row].inspection.id}/{asked[row].question.id} answer {asked[row].answer[:40]!r}",
        console,
    )
    done = "written" if rows else "nothing scored, left as it is"
    console.print(
        f"{done}: {output} ({len(rows)} of {total} answers scored, {len(result.quarantined)} in quarantine, "
        f"{len(result.unknown)} unknown, {result.asked} requests sent, {dollars(result.spent)} spent)",
        soft_wrap=True,
        markup=False,
    )
