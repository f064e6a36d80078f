"""`sage_run.json`: what a trained model was made from, how, and with which versions, without a path of this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import Field

from sage_trl.records import Record, parse_record
from sage_trl.storage import read_json, write_json

RUN_FILE = "sage_run.json"
METRICS_LOG = "metrics.jsonl"
"""What a training logged, entry by entry, beside the record of its run."""
# How a saved model wants to be prompted; the trainers write it beside every model.
INFERENCE_FILE = "sage_inference.json"


class TrainingSettings(Record):
    """What a step was, and how many there were.

    `rows_per_step` is the batch over all processes: per device x accumulation x processes. `dtype` names the type of
    the trained weights and the autocast, if any.
    """

    rows_per_step: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    processes: int
    steps: int
    epochs: float
    learning_rate: float
    lr_scheduler: str
    warmup_steps: int
    optimizer: str
    max_grad_norm: float
    dtype: str
    seed: int


class TrainingData(Record):
    """The dataset as its `dataset.json` describes it, and what of it was trained on.

    `rows` counts questions in stage 1 and pairs in stage 2. `judges` are the names found in the scores, `facts_by` the
    writers of the facts; both are empty where the stage uses none.
    """

    name: str
    licence: str
    sources: dict[str, str]
    sha256: str
    split: str
    rows: int
    judges: Annotated[tuple[str, ...], Field(strict=False)] = ()
    facts_by: Annotated[tuple[str, ...], Field(strict=False)] = ()


class PartParameters(Record):
    """Number of parameters of one part, and how many of them trained."""

    part: str
    parameters: int
    trainable: int


class RunRecord(Record):
    """The content of `sage_run.json`.

    Attributes:
        stage: the recipe's stage.
        model: what the stage started from, as the recipe says; a path of this machine is reduced to its name.
        base_model: the hub id of the model that the first stage started from; None for a local or a generated one.
        base_revision: its commit on the hub.
        chain: the records of the stages before this one, the first stage first; their own chains are empty.
        recipe: the keys that the user set, in the recipe or on the command line.
        method: every switch of the method as it was, set or not.
        versions: of Python and of the libraries that decide the result.
    """

    version: Literal[1] = 1
    stage: str
    model: str
    base_model: str | None
    base_revision: str | None
    chain: Annotated[tuple[RunRecord, ...], Field(strict=False)] = ()
    recipe: dict[str, Any]
    method: dict[str, Any]
    training: TrainingSettings
    data: TrainingData
    parts: Annotated[tuple[PartParameters, ...], Field(strict=False)]
    versions: dict[str, str]

    @property
    def stages(self) -> tuple[RunRecord, ...]:
        """All stages, the first first and this one last."""
        return (*self.chain, self)


def write_run_record(directory: Path, record: RunRecord) -> Path:
    """Write `sage_run.json` atomically."""
    path = directory / RUN_FILE
    write_json(path, record.model_dump(mode="json"))
    return path


def read_run_record(path: Path) -> RunRecord | None:
    """Read a `sage_run.json`, or return None where there is none.

    Raises:
        DataError: the file is malformed.
    """
    return parse_record(RunRecord, read_json(path), path) if path.is_file() else None


def without_local_paths(value: Any) -> Any:
    """The same JSON value with every absolute path, and every path that climbs upwards, reduced to its last name."""
    if isinstance(value, dict):
        return {key: without_local_paths(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(entry) for entry in value]
    if isinstance(value, str) and _is_local(value):
        return PureWindowsPath(value).name
    return value


def _is_local(text: str) -> bool:
    windows = PureWindowsPath(text)
    is_absolute = PurePosixPath(text).is_absolute() or bool(windows.drive and windows.root)
    return is_absolute or text.startswith("~") or ".." in windows.parts
