"""The sources by name. A new source is one file with a `Source` class, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from sage_trl.data.sources.base import Part, Source, SourceOptions
from sage_trl.errors import DataError

# By module and class, of which only the one asked for is imported: some need libraries that take seconds to load.
SOURCES = {
    "ad_pl": ("ad_pl", "AdPlSource"),
    "datasets": ("datasets_rows", "DatasetsSource"),
    "deep_pcb": ("deep_pcb", "DeepPcbSource"),
    "folder": ("folder", "FolderSource"),
    "labelme": ("labelme", "LabelmeSource"),
    "manta": ("manta", "MantaSource"),
    "mmad": ("mmad", "MmadSource"),
    "mpdd": ("mpdd", "MpddSource"),
    "mvtec": ("mvtec", "MvtecSource"),
    "synthetic": ("synthetic", "SyntheticSource"),
    "visa": ("visa", "VisaSource"),
}


def open_source(name: str) -> Source:
    """The source of that name.

    Raises:
        DataError: no such source.
    """
    if name not in SOURCES:
        raise DataError(f"source {name!r} is unknown\n  remedy: use one of {', '.join(sorted(SOURCES))}")
    module, source = SOURCES[name]
    return cast(Source, getattr(import_module(f"{__name__}.{module}"), source)())


__all__ = ["SOURCES", "Part", "Source", "SourceOptions", "open_source"]
