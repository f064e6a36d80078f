"""The whole of one evaluation: load each model, answer, grade, write `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.errors import DataError
from sage_trl.evaluation.comparison import compare_models
from sage_trl.evaluation.evidence import EvidenceFinder
from sage_trl.evaluation.harness import EvaluationRun, Measured, ModelUnderTest, measure
from sage_trl.evaluation.inference_settings import InferenceSettings, read_inference_settings
from sage_trl.evaluation.predictions import Control, Setting, results_key
from sage_trl.evaluation.report import COMPARISONS_FILE, Results, merge_metrics
from sage_trl.evaluation.similarity import open_sentence_encoder
from sage_trl.judge.scorer import open_judge
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.prompt import FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE, FactUse
from sage_trl.records import FactSet
from sage_trl.storage import write_json


@dataclass(frozen=True)
class EvaluationOptions:
    """What `tools/evaluate.py` takes.

    `controls` are run one after the other, None standing for the unchanged input. `use_facts=False` hides the facts
    from models that were trained with them, and goes with no other control. `sbert` is a sentence-transformers model.
    `evidence` writes what the models that fuse facts look at.
    """

    models: tuple[str, ...]
    dataset: Path
    settings: tuple[Setting, ...]
    output: Path
    splits: tuple[str, ...] = ("test",)
    controls: tuple[Control | None, ...] = (None,)
    limit: int | None = None
    batch_size: int = 64
    max_new_tokens: int = 48
    judge: str | None = None
    sbert: str | None = None
    facts: Path | None = None
    use_facts: bool = True
    seed: int = 0
    evidence: bool = False
    quiet: bool = False


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
    settings = {model: read_inference_settings(model) for model in _by_name(options.models).values()}
    if options.evidence and all(_fact_use(setting, options) != "fusion" for setting in settings.values()):
        raise DataError(
            "--evidence: no model fuses facts\n  remedy: leave it out, or evaluate a model of recipes/sfe.yaml"
        )
    directory = read_ad_pl(options.dataset)
    wants_facts = options.use_facts and any(setting.facts != "none" for setting in settings.values())
    facts = read_facts(options.facts or options.dataset / FACTS_FILE) if wants_facts else None
    if options.quiet:
        disable_progress_bar()  # of the weights being loaded
    results: Results = {}
    by_key: dict[str, dict[str, Measured]] = {}
    for name, path in _by_name(options.models).items():
        inference = settings[path]
        model = _load(name, path, inference, options)
        for control, setting in product(_controls_for(inference, options), options.settings):
            run = EvaluationRun(
                directory=directory,
                output=options.output,
                facts=_facts_for(inference, options, facts),
                judge=None if options.judge is None else open_judge(options.judge),
                encoder=encoder,
                control=control,
                limit=options.limit,
                batch_size=options.batch_size,
                seed=options.seed,
                quiet=options.quiet,
            )
            by_split = measure(model, setting, options.splits, run)
            named = {results_key(setting, split, control): measured for split, measured in by_split.items()}
            figures = {key: measured.metrics.as_json() for key, measured in named.items()}
            for key, measured in named.items():
                by_key.setdefault(key, {})[name] = measured
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


def _by_name(models: tuple[str, ...]) -> dict[str, str]:
    """Model name -> path or hub name.

    Raises:
        DataError: no such directory, or two models of one name.
    """
    named: dict[str, str] = {}
    for model in models:
        name = Path(model).resolve().name
        if name in named:
            raise DataError(
                f"--model: {named[name]} and {model} would both be called {name!r} in the results\n"
                "  remedy: evaluate them into different --output directories, or rename one"
            )
        if not Path(model).is_dir() and (Path(model).is_absolute() or Path(model).parent.is_dir()):
            raise DataError.at(model, None, "no such model directory", "check --model, or train the model first")
        named[name] = model
    return named


def _facts_for(
    inference: InferenceSettings, options: EvaluationOptions, facts: Mapping[str, FactSet] | None
) -> Mapping[str, FactSet] | None:
    return facts if _fact_use(inference, options) != "none" else None


def _fact_use(inference: InferenceSettings, options: EvaluationOptions) -> FactUse:
    return inference.facts if options.use_facts else "none"


def _controls_for(inference: InferenceSettings, options: EvaluationOptions) -> tuple[Control | None, ...]:
    # A model that was trained without facts loses nothing by --no-facts: that is its ordinary result.
    return ("no_facts",) if inference.facts != "none" and not options.use_facts else options.controls


def _load(name: str, path: str, inference: InferenceSettings, options: EvaluationOptions) -> ModelUnderTest:
    has_accelerator = torch.accelerator.is_available()
    model, processor = load_pretrained(path, dtype="auto" if has_accelerator else torch.float32)
    if has_accelerator:
        model = model.to(torch.accelerator.current_accelerator())
    fact_use = _fact_use(inference, options)
    return ModelUnderTest(
        name=name,
        generator=ModelReplyGenerator(
            model, processor, options.max_new_tokens, fact_use, inference.reference_in_prompt
        ),
        identity={
            "fingerprint": model_fingerprint(path, getattr(model.config, "_commit_hash", None)),
            "max_new_tokens": options.max_new_tokens,
            "facts": fact_use,
            "reference_in_prompt": inference.reference_in_prompt,
            "sentences": [FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE],
        },
        evidence=EvidenceFinder(model, processor, inference.reference_in_prompt)
        if options.evidence and fact_use == "fusion"
        else None,
    )
