"""From what `--model` names to models under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sage_trl.errors import DataError, SageError
from sage_trl.evaluation.evaluation_record import EVALUATION_FILE, evaluated_models
from sage_trl.evaluation.evidence import EvidenceFinder
from sage_trl.evaluation.harness import ModelUnderTest
from sage_trl.evaluation.inference_settings import InferenceSettings, read_inference_settings
from sage_trl.evaluation.options import EvaluationOptions
from sage_trl.evaluation.served_model import ServedModel
from sage_trl.llm_client.arguments import SERVED
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.devices import inference_dtype
from sage_trl.models.fingerprint import model_fingerprint
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.plain import load_plain, shares_prefixes
from sage_trl.models.prompt import FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE, FactUse

PLAIN = "hf:"
PLAIN_INFERENCE = InferenceSettings(facts="none", reference_in_prompt=True)


@dataclass(frozen=True)
class ModelPlan:
    """A model that will be evaluated, as far as it is known before its weights are read.

    Attributes:
        name: what the results call it.
        spec: what `--model` said.
        trained_facts: what became of facts when it was trained.
        facts: what becomes of them here; `none` where they are hidden from it.
        open: reads the weights; takes the device that the model shall run on.
        served: the model behind a server, if it is one.
    """

    name: str
    spec: str
    trained_facts: FactUse
    facts: FactUse
    open: Callable[[torch.device], ModelUnderTest]
    served: ServedModel | None = None


def plan_models(options: EvaluationOptions) -> list[ModelPlan]:
    """Find what each specification names; no weights are read.

    A specification is the directory or hub id of a model that this toolkit can load, or

    - `hf:ID`: any image-text-to-text model of transformers, by directory or hub id, as it is.
    - `openai:NAME`: a model of that name behind an OpenAI-compatible server.

    Raises:
        DataError: no such model, or two of one name, of which an earlier run into the same directory may have had one.
    """
    named: dict[str, str] = {}
    earlier = evaluated_models(options.output)
    for spec in options.models:
        name = _name_of(spec)
        other = named.get(name, earlier.get(name, spec))
        if name in named or whole_spec(other) != whole_spec(spec):
            moved = "" if name in named else f"; if it was only moved, remove {options.output / EVALUATION_FILE}"
            raise DataError(
                f"--model: {other} and {spec} would both be called {name!r} in the results\n"
                f"  remedy: evaluate them into different --output directories, or rename one{moved}"
            )
        named[name] = spec
    return [_plan(name, spec, options) for name, spec in named.items()]


def whole_spec(spec: str) -> str:
    """What `--model` said, a directory as a whole path."""
    path = Path(_id_of(spec))
    if spec.startswith(SERVED) or not path.is_dir():
        return spec
    return f"{PLAIN if spec.startswith(PLAIN) else ''}{path.resolve()}"


def _plan(name: str, spec: str, options: EvaluationOptions) -> ModelPlan:
    if spec.startswith(SERVED):
        return _plan_served(name, spec, options)
    if spec.startswith(PLAIN):
        plain = _as_asked(PLAIN_INFERENCE, options)
        opener = partial(_open_plain, name, _id_of(spec), plain, options)
        return ModelPlan(name, spec, PLAIN_INFERENCE.facts, plain.facts, opener)
    trained = read_inference_settings(spec)
    inference = _as_asked(trained, options)
    return ModelPlan(
        name, spec, trained.facts, inference.facts, lambda device: _open_ours(name, spec, inference, options, device)
    )


def _as_asked(trained: InferenceSettings, options: EvaluationOptions) -> InferenceSettings:
    """How a model is prompted: as it was trained, unless the options say otherwise of its facts."""
    facts: FactUse = "hard" if options.facts_as_text else trained.facts if options.use_facts else "none"
    return trained.model_copy(update={"facts": facts})


def _plan_served(name: str, spec: str, options: EvaluationOptions) -> ModelPlan:
    if options.service is None:
        raise SageError(f"--model {spec}: no server is named\n  remedy: give --base-url")
    if options.facts_as_text:
        raise SageError(f"--model {spec}: facts go to no server\n  remedy: leave --facts-as-text or this model out")
    service = replace(options.service, model=spec.removeprefix(SERVED), yes=True)
    served = ServedModel(service, options.max_new_tokens)
    opened = ModelUnderTest(name, served, served.identity(), served=True)
    return ModelPlan(name, spec, "none", "none", lambda _device: opened, served)


def _name_of(spec: str) -> str:
    """The last part of a directory's path or of a hub id.

    Raises:
        DataError: it is a path, and no directory.
    """
    if spec.startswith(SERVED):
        return spec.removeprefix(SERVED).rpartition("/")[2]
    path = Path(_id_of(spec))
    if not path.is_dir() and (path.is_absolute() or path.parent.is_dir()):
        raise DataError.at(spec, None, "no such model directory", "check --model, or train the model first")
    return path.resolve().name


def _id_of(spec: str) -> str:
    return spec.removeprefix(PLAIN)


def _open_ours(
    name: str, spec: str, inference: InferenceSettings, options: EvaluationOptions, device: torch.device
) -> ModelUnderTest:
    model, processor = load_pretrained(spec, dtype=inference_dtype(device))
    model = model.to(device)
    in_prompt = inference.reference_in_prompt
    finds_evidence = options.evidence and inference.facts == "fusion"
    return ModelUnderTest(
        name=name,
        generator=ModelReplyGenerator(model, processor, options.max_new_tokens, inference.facts, in_prompt),
        identity=_identity(spec, model, inference, options),
        evidence=EvidenceFinder(model, processor, in_prompt) if finds_evidence else None,
    )


def _open_plain(
    name: str, spec: str, inference: InferenceSettings, options: EvaluationOptions, device: torch.device
) -> ModelUnderTest:
    model, processor = load_plain(spec, dtype=inference_dtype(device))
    return ModelUnderTest(
        name=name,
        generator=ModelReplyGenerator(
            model.to(device),
            processor,
            options.max_new_tokens,
            inference.facts,
            inference.reference_in_prompt,
            share_prefixes=shares_prefixes(model),
        ),
        identity={"plain": True, **_identity(spec, model, inference, options)},
    )


def _identity(spec: str, model: Any, inference: InferenceSettings, options: EvaluationOptions) -> dict[str, Any]:
    return {
        "fingerprint": model_fingerprint(spec, getattr(model.config, "_commit_hash", None)),
        "max_new_tokens": options.max_new_tokens,
        "facts": inference.facts,
        "reference_in_prompt": inference.reference_in_prompt,
        "sentences": [FACT_SENTENCE, HARD_FACTS_SENTENCE, REFERENCE_SENTENCE, TEST_SENTENCE],
    }
