"""The whole of one evaluation: load each model, answer, grade, write `metrics.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.errors import DataError
from sage_trl.evaluation.comparison import compare_models
from sage_trl.evaluation.consent import Charge, agree_on_cost
from sage_trl.evaluation.conversations import as_asked
from sage_trl.evaluation.evaluation_record import (
    EvaluationRecord,
    dataset_has_changed,
    note_evaluation,
    refuse_other_dataset,
)
from sage_trl.evaluation.harness import EvaluationRun, Measured, measure
from sage_trl.evaluation.judgements import JudgedReply, judged_reply, merge_judgements
from sage_trl.evaluation.mean_intervals import criterion_intervals
from sage_trl.evaluation.metrics import Metrics, mean_criteria
from sage_trl.evaluation.model_judging import ReplyJudge
from sage_trl.evaluation.opening import ModelPlan, plan_models, whole_spec
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.evaluation.predictions import Control, Setting, results_key
from sage_trl.evaluation.processes import Processes, launched_processes
from sage_trl.evaluation.questions import build_questions
from sage_trl.evaluation.results_files import Results, drop_comparisons, merge_comparisons, merge_metrics
from sage_trl.evaluation.similarity import open_sentence_encoder
from sage_trl.judge.rule import RuleJudge


def run_evaluation(options: EvaluationOptions) -> Results:
    """Evaluate every model in every setting on every split.

    `metrics.json` is brought up to date after each setting, so a stopped run leaves what it has finished.
    With several models `comparisons.json` holds a paired test of each two of them. A language model judges once all
    replies are saved.

    Returns:
        The results of this run: model name -> `results_key` -> figures; nothing for a dry run, or in all but the first
        of several processes.

    Raises:
        DataError: a model, the dataset, its facts or an earlier output cannot be used.
        SageError: what ended the judging early, once everything received is saved.
    """
    with launched_processes() as processes:
        return _run(options, processes)


def _run(options: EvaluationOptions, processes: Processes) -> Results:
    encoder = None if options.sbert is None else open_sentence_encoder(options.sbert)
    plans = plan_models(options)
    if options.evidence and all(plan.facts != "fusion" for plan in plans):
        raise DataError(
            "--evidence: no model fuses facts\n  remedy: leave it out, or evaluate a model of recipes/sfe.yaml"
        )
    refuse_other_dataset(options.output, options.dataset)
    directory = read_ad_pl(options.dataset)
    directory.select(splits=options.splits)  # a split that is not there is told before models are loaded
    tell = _teller(options.quiet or not processes.is_first)
    if dataset_has_changed(options.output, directory.info.sha256):
        tell(
            f"{options.dataset}: the questions have changed since the last evaluation into {options.output}; what this "
            "run does not measure anew there is of those before"
        )
    facts_file = options.facts or options.dataset / FACTS_FILE
    facts = read_facts(facts_file) if any(plan.facts != "none" for plan in plans) else None
    judge = _open_judge(directory, options)
    if processes.is_first:
        agree_on_cost(list(_charges(plans, judge, directory, options)), options.quiet)
    if options.dry_run:
        return {}
    if options.quiet or not processes.is_first:
        disable_progress_bar()  # of the weights being loaded
    results: Results = {}
    by_key: dict[str, dict[str, Measured]] = {}
    for plan in plans:
        name, model = plan.name, plan.open(processes.device)
        for control, setting in product(_controls_for(plan, options), options.settings):
            run = EvaluationRun(
                directory=directory,
                output=options.output,
                facts=facts if plan.facts != "none" else None,
                judge=RuleJudge() if options.judge == "rule" else None,
                encoder=encoder,
                control=control,
                limit=options.limit,
                batch_size=options.batch_size,
                seed=options.seed,
                quiet=options.quiet,
                processes=processes,
                mmad_protocols=options.mmad_protocols,
            )
            by_split = measure(model, setting, options.splits, run)
            if not processes.is_first:
                continue
            named = {results_key(setting, split, control): measured for split, measured in by_split.items()}
            figures = {key: measured.metrics.as_json() for key, measured in named.items()}
            for key, measured in named.items():
                by_key.setdefault(key, {})[name] = measured
            record = _record(options, plan, setting, None if run.facts is None else facts_file, directory)
            note_evaluation(options.output, record)
            drop_comparisons(options.output, {name: figures})
            kept = merge_metrics(options.output, {name: figures}, tell)
            _note_rule_scores(named.values(), options.output)
            results.setdefault(name, {}).update(kept[name])
    if len(options.models) > 1 and processes.is_first:
        merge_comparisons(options.output, _comparisons(by_key, options.seed))
    if judge is not None and processes.is_first:
        _judge(judge, by_key, results, options)
    return results


def _teller(quiet: bool) -> Callable[[str], None]:
    console = Console(stderr=True, quiet=quiet)
    return partial(console.print, markup=False, highlight=False, soft_wrap=True)


def _open_judge(directory: AdPlDirectory, options: EvaluationOptions) -> ReplyJudge | None:
    """The language model that will judge, if one will."""
    if options.judge_service is None:
        return None
    return ReplyJudge(directory, replace(options.judge_service, yes=True), options.judgements)


def _charges(
    plans: Sequence[ModelPlan], judge: ReplyJudge | None, directory: AdPlDirectory, options: EvaluationOptions
) -> Iterator[Charge]:
    """What the user has to agree to: replies of served models, and their judgement."""
    # At most: in a conversation each reply comes back as a part of the next prompt.
    longest = "word" * options.max_new_tokens
    for plan in plans:
        if plan.served is not None and options.service is not None:
            rows = [
                asked.row
                for control, setting, split in product(_controls_for(plan, options), options.settings, options.splits)
                for asked in as_asked(
                    build_questions(
                        directory,
                        None,
                        split=split,
                        setting=setting,
                        control=control,
                        limit=options.limit,
                        seed=options.seed,
                        identity={},
                    ),
                    setting,
                    lambda _asked: longest,
                )
            ]
            yield Charge(f"ask {plan.name}", plan.served.estimate(rows), options.service)
    if judge is not None and options.judge_service is not None:
        inspections = [row for split in options.splits for row in directory.select(splits=[split])[: options.limit]]
        times = sum(len(_controls_for(plan, options)) * len(options.settings) for plan in plans)
        yield Charge("judge", judge.estimate(inspections, times), options.judge_service)


def _note_rule_scores(measured: Iterable[Measured], output: Path) -> None:
    judged = {}
    for one in measured:
        if one.scores is not None:
            pairs = zip(one.predictions, one.scores, strict=True)
            judged[one.judged_by(RuleJudge.name)] = [judged_reply(row, RuleJudge.name, scores) for row, scores in pairs]
    if judged:
        merge_judgements(output, judged)


def _judge(
    judge: ReplyJudge, by_key: Mapping[str, Mapping[str, Measured]], results: Results, options: EvaluationOptions
) -> None:
    """Have all replies judged, and put the scores into `judgements.jsonl`, `metrics.json` and `results`.

    Raises:
        SageError: what ended the judging early; a mean over the replies that came first is not written.
    """
    measured = [(name, key, one) for key, by_model in by_key.items() for name, one in by_model.items()]
    scored, stopped = judge.score([one for _, _, one in measured])
    judged = {}
    for (name, key, one), rows in zip(measured, scored, strict=True):
        unscored = len(one.predictions) - len(rows)
        if stopped is not None and unscored:
            continue
        results[name][key] = _with_scores(one, rows, options.seed).as_json()
        judged[one.judged_by(judge.name)] = rows
    merge_judgements(options.output, judged)
    for name, by_setting in merge_metrics(options.output, results).items():
        results[name].update(by_setting)
    if stopped is not None:
        raise stopped


def _with_scores(measured: Measured, rows: Sequence[JudgedReply], seed: int) -> Metrics:
    """The figures with the scores of a language model, which may lack some replies."""
    scores = [(row.type, row.location, row.logic) for row in rows]
    units = [measured.groups[row.group_id].unit for row in rows]
    intervals = criterion_intervals("mle", scores, units, seed)
    return measured.metrics.model_copy(
        update={
            "mle": mean_criteria(scores) if scores else None,
            "mle_unscored": len(measured.predictions) - len(rows),
            "intervals": {**measured.metrics.intervals, **intervals},
        }
    )


def _comparisons(by_key: Mapping[str, Mapping[str, Measured]], seed: int) -> list[dict[str, Any]]:
    return [
        {
            "setting": key,
            "first": first,
            "second": second,
            **compare_models(
                by_model[first].predictions, by_model[second].predictions, by_model[first].groups, seed
            ).model_dump(mode="json"),
        }
        for key, by_model in by_key.items()
        for first, second in combinations(by_model, 2)
        if _graded(by_model[first]) & _graded(by_model[second])
    ]


def _graded(measured: Measured) -> set[tuple[str, str]]:
    """The questions that a model was graded on; a server may have left any of them without a reply."""
    return {(row.group_id, row.question_id) for row in measured.predictions if row.correct is not None}


def _record(
    options: EvaluationOptions, plan: ModelPlan, setting: Setting, facts: Path | None, directory: AdPlDirectory
) -> EvaluationRecord:
    return EvaluationRecord(
        dataset=str(options.dataset.resolve()),
        dataset_sha256=directory.info.sha256,
        facts=None if facts is None else str(facts.resolve()),
        seed=options.seed,
        splits=list(options.splits),
        settings=[setting],
        models={plan.name: whole_spec(plan.spec)},
    )


def _controls_for(plan: ModelPlan, options: EvaluationOptions) -> tuple[Control | None, ...]:
    if options.facts_as_text:
        return ("hard_facts",)
    # A model that was trained without facts loses nothing by --no-facts: that is its ordinary result.
    return ("no_facts",) if plan.trained_facts != plan.facts else options.controls
