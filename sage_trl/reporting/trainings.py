"""Reads the log of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_trl.errors import DataError
from sage_trl.reporting.folders import STATE_FILE
from sage_trl.run_record import METRICS_LOG, RUN_FILE, read_run_record
from sage_trl.storage import read_json, read_whole_json_lines

Curve = tuple[list[float], list[float]]
"""Steps and values."""
_PREFERENCE_STAGES = ("dpo", "edpo")


@dataclass(frozen=True)
class Training:
    """A training run: its stage (None where no `sage_run.json` tells it), and what was logged by step."""

    name: str
    path: Path
    stage: str | None
    stages: int
    log: Sequence[dict[str, Any]]

    @property
    def learns_preferences(self) -> bool:
        """Whether it is a run of stage 2."""
        if self.stage is not None:
            return self.stage in _PREFERENCE_STAGES
        return any(name.startswith("rewards/") for entry in self.log for name in entry)

    def curve(self, name: str) -> Curve:
        """Steps and values of one logged figure; empty where it was not logged."""
        points = [(entry["step"], entry[name]) for entry in self.log if isinstance(entry.get(name), int | float)]
        return [float(step) for step, _ in points], [float(value) for _, value in points]


def read_trainings(folders: Sequence[Path]) -> list[Training]:
    """Read the runs' logs, those of the first stages first.

    Raises:
        DataError: a log or a run record is damaged.
    """
    trainings = [_read(folder) for folder in folders]
    return sorted(trainings, key=lambda training: (training.stages, training.learns_preferences))


def _read(folder: Path) -> Training:
    log = _live_log(folder / METRICS_LOG) if (folder / METRICS_LOG).is_file() else _final_log(folder / STATE_FILE)
    record = read_run_record(folder / RUN_FILE)
    stages = 0 if record is None else len(record.stages)
    return Training(folder.resolve().name, folder, None if record is None else record.stage, stages, log)


def _live_log(path: Path) -> list[dict[str, Any]]:
    """What `metrics.jsonl` holds so far; a line that a kill cut short comes last and is left out."""
    entries: list[dict[str, Any]] = []
    for line, entry in read_whole_json_lines(path):
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
        else:
            raise DataError.at(path, line, "is no entry with a step", "delete the line, or leave this run out")
    return entries


def _final_log(path: Path) -> list[dict[str, Any]]:
    """What the `Trainer` keeps in `trainer_state.json`, all there is of a run without `metrics.jsonl`."""
    state = read_json(path)
    log = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(log, list) or not all(isinstance(entry, dict) and "step" in entry for entry in log):
        problem = "field 'log_history': is no list of entries with a step"
        raise DataError.at(path, None, problem, "leave this run out, or train it anew")
    return log
