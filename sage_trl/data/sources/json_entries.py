"""Reads the JSON files that benchmarks bring, entry by entry, and notes every fault with its field and value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.photos import check_inside
from sage_trl.errors import DataError
from sage_trl.records import check_relative_path
from sage_trl.storage import read_json


class Entry(BaseModel):
    """Base of the entries: strict about types; fields that we do not need may be there."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", str_strip_whitespace=True)


AnyEntry = TypeVar("AnyEntry", bound=Entry)


def json_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The JSON files among what a glob pattern finds, in order, whatever the case of their endings."""
    return sorted(path for path in folder.glob(pattern) if path.suffix.lower() == ".json")


def read_entries(kind: type[AnyEntry], path: Path, faults: FaultList) -> Iterator[tuple[str, AnyEntry]]:
    """Yield (field, entry) for each good entry of a file that holds a list, or an object of named entries."""
    with faults.collecting():
        content = read_json(path)
        if not isinstance(content, list | dict) or not content:
            problem = f"holds {type(content).__name__} {str(content)[:60]!r}"
            raise DataError.at(path, None, problem, "write a list, or an object, of entries; it may not be empty")
        named = content.items() if isinstance(content, dict) else ((f"[{n}]", each) for n, each in enumerate(content))
        for field, value in named:
            entry = parse_entry(kind, value, path, field, faults)
            if entry is not None:
                yield field, entry


def parse_entry(kind: type[AnyEntry], value: Any, path: Path, field: str, faults: FaultList) -> AnyEntry | None:
    """The entry, or None after noting each of its faults."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            place = ".".join([field, *map(str, fault["loc"])]) if field else ".".join(map(str, fault["loc"]))
            shown = repr(fault.get("input"))
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            problem = f"field {place!r}: {fault['msg']} (value: {shown})"
            faults.add(path, None, problem, "correct the entry, or remove it")
    return None


def image_of(relative: str, folder: Path, root: Path, path: Path, field: str, faults: FaultList) -> Path | None:
    """The image that an entry names, or None after noting why there is none."""
    try:
        check_relative_path(relative)
    except ValueError as error:
        faults.add(path, None, f"field {field!r}: {relative!r} {error}", "write a path below the root")
        return None
    image = folder / relative
    if not image.is_file():
        faults.add(path, None, f"field {field!r}: no image at {image}", "restore the image, or remove the entry")
        return None
    with faults.collecting():
        check_inside(image, root)
        return image
    return None
