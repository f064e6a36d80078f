"""Collects the faults of an input, so that a user sees all of them in one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sage_trl.errors import DataError


class FaultList:
    """The faults found so far, in the order of finding."""

    def __init__(self) -> None:
        self.faults: list[DataError] = []

    def add(self, path: Path | str, line: int | None, problem: str, remedy: str) -> None:
        """Note a fault; the arguments are those of `DataError.at`."""
        self.faults.append(DataError.at(path, line, problem, remedy))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note a `DataError` of the body and go on after it."""
        try:
            yield
        except DataError as error:
            self.faults.append(error)

    def raise_all(self, root: Path | str) -> None:
        """Raise one error that shows every fault, if there is any.

        Raises:
            DataError: what was noted, below a line with the number of faults and `root`.
        """
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            shown = "\n".join(str(fault) for fault in self.faults)
            raise DataError(f"{len(self.faults)} faults in {root}\n{shown}")
