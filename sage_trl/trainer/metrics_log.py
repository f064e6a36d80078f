"""`metrics.jsonl`: what the `Trainer` logs, on disk line by line: a run can be watched, and a killed one read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sage_trl.errors import MachineError
from sage_trl.storage import JsonlAppender


class MetricsLog(TrainerCallback):
    """Appends each entry of `log_history`; a figure that is not finite is null.

    The file is locked as long as it is open: two trainings cannot write to one run. A resumed run begins with what its
    checkpoint knows, for the steps after it are taken again.

    Raises:
        LockedError: another training writes to this run.
        MachineError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = JsonlAppender(path)
        except OSError as error:
            raise self._error(error) from error

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Begin with what a checkpoint knows."""
        try:
            self._file.clear()
            self._file.append(_finite(entry) for entry in state.log_history)
        except OSError as error:
            raise self._error(error) from error

    def on_log(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Append the newest entry."""
        try:
            self._file.append([_finite(state.log_history[-1])])
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Let another training write to the run."""
        self._file.close()

    def _error(self, error: OSError) -> MachineError:
        remedy = "free space, make the directory writable, or choose another output_dir; then --resume goes on"
        return MachineError(f"{self.path}: cannot be written: {error.strerror}\n  remedy: {remedy}")


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.items()
    }
