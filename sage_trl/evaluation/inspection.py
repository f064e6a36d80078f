"""A look inside one case: what a model answers on one pair, and what its facts look at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from sage_trl.data.fact_sets import read_facts
from sage_trl.data.images import open_image, read_bytes
from sage_trl.errors import DataError
from sage_trl.evaluation.evidence import EvidenceFinder
from sage_trl.evaluation.evidence_rows import Evidence
from sage_trl.evaluation.inference_settings import read_inference_settings
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.devices import inference_device, inference_dtype
from sage_trl.models.generation import ModelReplyGenerator
from sage_trl.models.prompt import question_messages


@dataclass(frozen=True)
class PairInspection:
    """The answers of a model on one pair of images, in the order of the questions, and its evidence."""

    test: Image
    reference: Image | None
    answers: tuple[str, ...]
    evidence: Evidence


def inspect_pair(
    model_name: str,
    test: Path,
    reference: Path | None,
    questions: Sequence[str],
    facts: Sequence[str],
    max_new_tokens: int,
) -> PairInspection:
    """Ask a model about one pair.

    Args:
        model_name: directory or hub id of a model that fuses facts.
        test, reference: image files; without a reference the facts are compared with all of the test image.
        questions: answered one by one.
        facts: sentences, one or more.
        max_new_tokens: longest answer in tokens.

    Raises:
        DataError: a model that fuses no facts, or a file that cannot be used.
    """
    test_picture, reference_picture = open_image(test), None if reference is None else open_image(reference)
    settings = read_inference_settings(model_name)
    if settings.facts != "fusion":
        raise DataError.at(
            model_name,
            None,
            f"it fuses no facts (its facts are {settings.facts!r}), so there are no patches to show",
            "give a model of recipes/sfe.yaml or of a later stage",
        )
    device = inference_device()
    model, processor = load_pretrained(model_name, dtype=inference_dtype(device))
    model = model.to(device)
    rows = [
        {
            "images": [test_picture],
            "reference_image": reference_picture,
            "facts": list(facts),
            "prompt": question_messages(text),
            "group_id": test.name,
            "question_id": text,
        }
        for text in questions
    ]
    reply = ModelReplyGenerator(model, processor, max_new_tokens, "fusion", settings.reference_in_prompt)
    [evidence] = EvidenceFinder(model, processor, settings.reference_in_prompt)(rows[:1])
    answers = tuple(one.text for one in reply(rows))
    return PairInspection(test_picture, reference_picture, answers, evidence)


def choose_facts(given: Sequence[str], test: Path) -> list[str]:
    """The facts of a test image: sentences as they are, or those of a file.

    Args:
        given: sentences; or one file, `facts.jsonl` with the image's SHA-256, or a text with one sentence a line.
        test: the image.

    Raises:
        DataError: no sentence, or the file has none for this image.
    """
    remedy = 'give --facts "SENTENCE" ..., or the facts.jsonl of tools/generate_facts.py'
    path = Path(given[0]) if len(given) == 1 else None
    if path is not None and path.suffix == ".jsonl":
        found = read_facts(path).get(hashlib.sha256(read_bytes(test)).hexdigest())
        if found is None:
            raise DataError.at(path, None, f"no facts for {test}", remedy)
        return list(found.facts)
    if path is not None and path.suffix == ".txt":
        given = _read_lines(path)
    sentences = [sentence.strip() for sentence in given if sentence.strip()]
    if not sentences:
        raise DataError(f"no facts for {test}, and without facts nothing is compared\n  remedy: {remedy}")
    return sentences


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError.at(path, None, "no such file", "check --facts") from None
    except UnicodeDecodeError as error:
        raise DataError.at(path, None, f"not UTF-8: {error}", "save the file as UTF-8") from None
