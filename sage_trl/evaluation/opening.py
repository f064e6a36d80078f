"""From what `--model` names to models under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sage_trl.errors import DataError
from sage_trl.evaluation.harness import ModelUnderTest
from sage_trl.evaluation.inference_settings import InferenceSettings, read_inference_settings
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.prompt import FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE, FactUse


@dataclass(frozen=True)
class ModelPlan:
    """A model that will be evaluated, as far as it is known before its weights are read.

    Attributes:
        name: what the results call it.
        spec: what `--model` said.
        wants_facts: whether it answers with facts unless they are hidden from it.
        open: reads the weights.
    """

    name: str
    spec: str
    wants_facts: bool
    open: Callable[[], ModelUnderTest]


def plan_models(options: EvaluationOptions) -> list[ModelPlan]:
    """Find what each specification names; no weights are read.

    A specification is the directory or hub id of a model that this toolkit can load.

    Raises:
        DataError: no such model, or two of one name.
    """
    named: dict[str, str] = {}
    for spec in options.models:
        name = _name_of(spec)
        if name in named:
            raise DataError(
                f"--model: {named[name]} and {spec} would both be called {name!r} in the results\n"
                "  remedy: evaluate them into different --output directories, or rename one"
            )
        named[name] = spec
    return [_plan(name, spec, options) for name, spec in named.items()]


def _plan(name: str, spec: str, options: EvaluationOptions) -> ModelPlan:
    inference = read_inference_settings(spec)
    if options.facts_as_text:
        inference = inference.model_copy(update={"facts": "hard"})
    return ModelPlan(name, spec, inference.facts != "none", lambda: _open_ours(name, spec, inference, options))


def _name_of(model: str) -> str:
    """The last part of a directory's path or of a hub id.

    Raises:
        DataError: it is a path, and no directory.
    """
    if not Path(model).is_dir() and (Path(model).is_absolute() or Path(model).parent.is_dir()):
        raise DataError.at(model, None, "no such model directory", "check --model, or train the model first")
    return Path(model).resolve().name


def _open_ours(name: str, spec: str, inference: InferenceSettings, options: EvaluationOptions) -> ModelUnderTest:
    has_accelerator = torch.accelerator.is_available()
    model, processor = load_pretrained(spec, dtype="auto" if has_accelerator else torch.float32)
    if has_accelerator:
        model = model.to(torch.accelerator.current_accelerator())
    facts: FactUse = inference.facts if options.use_facts else "none"
    return ModelUnderTest(
        name=name,
        generator=ModelReplyGenerator(model, processor, options.max_new_tokens, facts, inference.reference_in_prompt),
        identity={
            "fingerprint": model_fingerprint(spec, getattr(model.config, "_commit_hash", None)),
            "max_new_tokens": options.max_new_tokens,
            "facts": facts,
            "reference_in_prompt": inference.reference_in_prompt,
            "sentences": [FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE],
        },
    )
