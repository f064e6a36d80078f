"""The whole of one evaluation: load each model, answer, grade, write `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.evaluation.comparison import compare_models
from sage_trl.evaluation.evaluation_record import EvaluationRecord, note_evaluation, refuse_other_dataset
from sage_trl.evaluation.harness import EvaluationRun, Measured, measure
from sage_trl.evaluation.opening import ModelPlan, plan_models
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.evaluation.predictions import Control, Setting, results_key
from sage_trl.evaluation.report import COMPARISONS_FILE, Results, merge_metrics
from sage_trl.evaluation.similarity import open_sentence_encoder
from sage_trl.judge.scorer import open_judge
from sage_trl.storage import write_json


def run_evaluation(options: EvaluationOptions) -> Results:
    """Evaluate every model in every setting on every split.

    `metrics.json` is brought up to date after each setting, so a stopped run leaves what it has finished.
    With several models `comparisons.json` holds a paired test of each two of them.

    Returns:
        The results of this run: model name (its directory's) -> `results_key` -> figures.

    Raises:
        DataError: a model, the dataset, its facts or an earlier output cannot be used.
    """
    encoder = None if options.sbert is None else open_sentence_encoder(options.sbert)
    plans = plan_models(options)
    refuse_other_dataset(options.output, options.dataset)
    directory = read_ad_pl(options.dataset)
    facts_file = options.facts or options.dataset / FACTS_FILE
    facts = read_facts(facts_file) if options.use_facts and any(plan.wants_facts for plan in plans) else None
    if options.quiet:
        disable_progress_bar()  # of the weights being loaded
    results: Results = {}
    by_key: dict[str, dict[str, Measured]] = {}
    for plan in plans:
        name, model = plan.name, plan.open()
        for control, setting in product(_controls_for(plan, options), options.settings):
            run = EvaluationRun(
                directory=directory,
                output=options.output,
                facts=facts if plan.wants_facts else None,
                judge=None if options.judge is None else open_judge(options.judge),
                encoder=encoder,
                control=control,
                limit=options.limit,
                batch_size=options.batch_size,
                seed=options.seed,
                quiet=options.quiet,
                mmad_protocols=options.mmad_protocols,
            )
            by_split = measure(model, setting, options.splits, run)
            named = {results_key(setting, split, control): measured for split, measured in by_split.items()}
            figures = {key: measured.metrics.as_json() for key, measured in named.items()}
            for key, measured in named.items():
                by_key.setdefault(key, {})[name] = measured
            note_evaluation(options.output, _record(options, plan, setting, None if run.facts is None else facts_file))
            merge_metrics(options.output, {name: figures})
            results.setdefault(name, {}).update(figures)
    if len(options.models) > 1:
        write_json(options.output / COMPARISONS_FILE, _comparisons(by_key, options.seed))
    return results


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
        if by_model[first].metrics.questions
    ]


def _record(options: EvaluationOptions, plan: ModelPlan, setting: Setting, facts: Path | None) -> EvaluationRecord:
    return EvaluationRecord(
        dataset=str(options.dataset.resolve()),
        facts=None if facts is None else str(facts.resolve()),
        seed=options.seed,
        splits=list(options.splits),
        settings=[setting],
        models={plan.name: plan.spec},
    )


def _controls_for(plan: ModelPlan, options: EvaluationOptions) -> tuple[Control | None, ...]:
    if options.facts_as_text:
        return ("hard_facts",)
    # A model that was trained without facts loses nothing by --no-facts: that is its ordinary result.
    return ("no_facts",) if plan.wants_facts and not options.use_facts else options.controls
