"""The sources by name. A new source is one file with a `Source` class, and one line here."""

from __future__ import annotations

from collections.abc import Callable

from sage_trl.data.sources.base import Part, Source, SourceOptions
from sage_trl.data.sources.deep_pcb import DeepPcbSource
from sage_trl.data.sources.synthetic import SyntheticSource
from sage_trl.errors import DataError

SOURCES: dict[str, Callable[[], Source]] = {
    "deep_pcb": DeepPcbSource,
    "synthetic": SyntheticSource,
}


def open_source(name: str) -> Source:
    """The source of that name.

    Raises:
        DataError: no such source.
    """
    if name not in SOURCES:
        raise DataError(f"source {name!r} is unknown\n  remedy: use one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]()


__all__ = ["SOURCES", "Part", "Source", "SourceOptions", "open_source"]
