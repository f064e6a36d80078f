"""The predictions of an output directory as they are made, by one process or several, so that a kill loses none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from sage_trl.evaluation.predictions import PREDICTIONS_FILE, Prediction
from sage_trl.evaluation.processes import ALONE, Processes
from sage_trl.records import iterate_records
from sage_trl.storage import JsonlAppender

_OF_PROCESS = "predictions.process-{}.jsonl"


class PredictionLog:
    """The predictions of an output directory by key: those of earlier runs, and new ones as they are added.

    A context manager; what was added is on the disk even if the process is killed right after. Of several processes
    the first one writes `predictions.jsonl` and each other a file of its own, which `gather`, or the next start after a
    kill, takes in.

    Raises:
        DataError: on entering, if an earlier file is damaged other than by a cut-off last line.
        LockedError: on entering, if another evaluation writes there.
    """

    def __init__(self, output: Path, processes: Processes = ALONE) -> None:
        self._output = output
        self._processes = processes

    def __enter__(self) -> PredictionLog:
        # Opening the appender drops a line that a kill cut short, which reading would refuse.
        path = self._output / PREDICTIONS_FILE
        if self._processes.is_first:
            self._appender = JsonlAppender(path)
            self._known = _read(path)
            self._take_in_others()
            self._processes.wait_for_all()
        else:
            self._processes.wait_for_all()
            self._appender = JsonlAppender(self._output / _OF_PROCESS.format(self._processes.index))
            self._known = _read(path)
        # The first one must not write before the others have read.
        self._processes.wait_for_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._appender.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Prediction:
        return self._known[key]

    def reply(self, key: str) -> str | None:
        """The reply under that key, None if there is none."""
        return self._known[key].prediction if key in self._known else None

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Write the predictions; returns once they are on the disk."""
        self._appender.append(prediction.model_dump(mode="json") for prediction in predictions)
        self._known.update({prediction.key: prediction for prediction in predictions})

    def gather(self) -> None:
        """Wait until all processes have called this; the first one then knows what all of them added."""
        if not self._processes.is_first:
            self._appender.close()
        self._processes.wait_for_all()
        if self._processes.is_first:
            self._take_in_others()

    def _take_in_others(self) -> None:
        for path in sorted(self._output.glob(_OF_PROCESS.format("*"))):
            JsonlAppender(path).close()
            self.add([prediction for key, prediction in _read(path).items() if key not in self._known])
            path.unlink()


def _read(path: Path) -> dict[str, Prediction]:
    return {prediction.key: prediction for _, prediction in iterate_records(Prediction, path)}
