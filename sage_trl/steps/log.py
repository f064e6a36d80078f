"""Which steps are done: a stopped run goes on where it stopped, a changed step is not taken for the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from sage_trl.records import Record, parse_record
from sage_trl.storage import content_key, file_sha256, read_json, write_json

StepState = Literal["new", "stopped", "done"]


class StepRecord(Record):
    """One step of `steps.json`; `seconds` is None until it is done."""

    key: str
    seconds: float | None


class StepFile(Record):
    """The content of `steps.json`: records by the step's name."""

    steps: dict[str, StepRecord]


class StepLog:
    """The steps of a run as far as they went, kept in one file of its output directory.

    Raises:
        DataError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps = parse_record(StepFile, read_json(path), path).steps if path.exists() else {}

    def state(self, name: str, key: str) -> StepState:
        """`done` or `stopped` if that step with that key was, else `new`."""
        record = self._steps.get(name)
        if record is None or record.key != key:
            return "new"
        return "stopped" if record.seconds is None else "done"

    def is_known(self, name: str) -> bool:
        """Whether a step of this name was ever started, with whatever key."""
        return name in self._steps

    def note(self, name: str, key: str, seconds: float | None) -> None:
        """Record that a step has begun (`seconds` None) or is done."""
        self._steps = {**self._steps, name: StepRecord(key=key, seconds=seconds)}
        write_json(self._path, StepFile(steps=self._steps).model_dump(mode="json"))


def step_key(arguments: Sequence[str], needs: Sequence[str]) -> str:
    """What decides a step's outcome: its arguments, the files among them (recipes), and the keys of what it needs."""
    files = {argument: file_sha256(Path(argument)) for argument in arguments if Path(argument).is_file()}
    return content_key({"arguments": list(arguments), "files": files, "needs": list(needs)})


def sources_key(directories: Iterable[Path]) -> str:
    """Fingerprint of the Python sources below the directories."""
    sources: Mapping[str, str] = {
        f"{directory.name}/{path.relative_to(directory).as_posix()}": file_sha256(path)
        for directory in directories
        for path in sorted(directory.rglob("*.py"))
    }
    return content_key(sources)
