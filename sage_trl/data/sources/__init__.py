"""The sources by name. A new source is one file with a `Source` class, and one line here."""

from __future__ import annotations

from collections.abc import Callable

from sage_trl.data.sources.ad_pl import AdPlSource
from sage_trl.data.sources.base import Part, Source, SourceOptions
from sage_trl.data.sources.datasets_rows import DatasetsSource
from sage_trl.data.sources.deep_pcb import DeepPcbSource
from sage_trl.data.sources.folder import FolderSource
from sage_trl.data.sources.labelme import LabelmeSource
from sage_trl.data.sources.manta import MantaSource
from sage_trl.data.sources.mmad import MmadSource
from sage_trl.data.sources.mpdd import MpddSource
from sage_trl.data.sources.mvtec import MvtecSource
from sage_trl.data.sources.synthetic import SyntheticSource
from sage_trl.data.sources.visa import VisaSource
from sage_trl.errors import DataError

SOURCES: dict[str, Callable[[], Source]] = {
    "ad_pl": AdPlSource,
    "datasets": DatasetsSource,
    "deep_pcb": DeepPcbSource,
    "folder": FolderSource,
    "labelme": LabelmeSource,
    "manta": MantaSource,
    "mmad": MmadSource,
    "mpdd": MpddSource,
    "mvtec": MvtecSource,
    "synthetic": SyntheticSource,
    "visa": VisaSource,
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
