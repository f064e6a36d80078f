"""The predictions of an output directory as they are made, by one process or several, so that a kill loses none."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from sage_trl.evaluation.predictions import PREDICTIONS_FILE, Prediction
from sage_trl.evaluation.processes import ALONE, Processes
from sage_trl.records import iterate_records
from sage_trl.storage import JsonlAppender

_OF_PROCESS = "predictions.process-{}.jsonl"


class PredictionLog:
    """The predictions of an output directory by key: those of earlier runs, and new ones as they are added.

    Of several lines about one question, put to one model under one condition, the last one counts; see `settle`.
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
        self._known: dict[str, Prediction] = {}
        self._last: dict[Hashable, Prediction] = {}

    def __enter__(self) -> PredictionLog:
        # Opening the appender drops a line that a kill cut short, which reading would refuse.
        path = self._output / PREDICTIONS_FILE
        if self._processes.is_first:
            self._appender = JsonlAppender(path)
            self._learn(_read(path))
            self._take_in_others()
            self._processes.wait_for_all()
        else:
            self._processes.wait_for_all()
            self._appender = JsonlAppender(self._output / _OF_PROCESS.format(self._processes.index))
            self._learn(_read(path))
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
        self._learn(predictions)

    def settle(self, predictions: Sequence[Prediction]) -> None:
        """Make these the last lines of their questions: those that are not so yet are written once more.

        Replies that were known by their key, or are graded otherwise than they were, then stand behind those of a model
        or a dataset that was tried in between. Only the first process may call this, after `gather`.
        """
        last = {_place(prediction): prediction for prediction in predictions}
        moved = [prediction for place, prediction in last.items() if self._last.get(place) != prediction]
        if moved:
            self.add(moved)

    def _learn(self, predictions: Iterable[Prediction]) -> None:
        for prediction in predictions:
            self._known[prediction.key] = prediction
            self._last[_place(prediction)] = prediction

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
            self.add([prediction for prediction in _read(path) if prediction.key not in self._known])
            path.unlink()


def _read(path: Path) -> list[Prediction]:
    return [prediction for _, prediction in iterate_records(Prediction, path)]


def _place(row: Prediction) -> Hashable:
    """Which question was put to which model under which condition."""
    return row.model, row.setting, row.split, row.control, row.group_id, row.question_id
