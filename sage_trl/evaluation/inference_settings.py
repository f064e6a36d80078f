"""How a saved model wants to be prompted."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import cached_file

from sage_trl.errors import DataError
from sage_trl.models.checkpoints import is_plain_model
from sage_trl.models.prompt import FactUse
from sage_trl.records import Record, parse_record
from sage_trl.run_record import INFERENCE_FILE
from sage_trl.storage import read_json


class InferenceSettings(Record):
    """What the trainer notes beside a model, because a model answers best with the input it was trained on."""

    facts: FactUse = "fusion"
    reference_in_prompt: bool = False
    stage: str | None = None


def read_inference_settings(model: str) -> InferenceSettings:
    """Read `sage_inference.json` beside a model.

    Without that file a fact-enhanced model gets its defaults; a plain model, whose fusion would be random, gets no
    facts and sees the reference in the prompt.

    Args:
        model: a directory, or a hub id.

    Raises:
        DataError: the file is malformed, or there is no such model.
    """
    path = Path(model) / INFERENCE_FILE
    if not Path(model).is_dir():
        try:
            found = cached_file(
                model,
                INFERENCE_FILE,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except OSError:  # a name that no model of the hub can have
            problem = "no such model directory, and no model of the hub"
            raise DataError.at(model, None, problem, "check --model, or train the model first") from None
        path = path if found is None else Path(found)
    if path.is_file():
        return parse_record(InferenceSettings, read_json(path), path)
    plain = is_plain_model(model)
    return InferenceSettings(facts="none" if plain else "fusion", reference_in_prompt=plain)
