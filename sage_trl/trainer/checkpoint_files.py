"""Checkpoints that are whole or absent: a manifest with a hash of every file, written last, and then one rename."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from sage_trl.errors import DataError
from sage_trl.records import Record, parse_record
from sage_trl.storage import content_key, file_sha256, read_json, write_json

MANIFEST_FILE = "sage_manifest.json"
PARTIAL_FOLDER = ".partial"
"""Holds, below a run, what is being written or deleted; whatever lies there is not whole."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_HASHING_THREADS = 8


class FileEntry(Record):
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


class Manifest(Record):
    """The content of a checkpoint's `sage_manifest.json`.

    Attributes:
        step: optimizer steps done.
        weights_only: there is no state of optimizer and schedule to go on with (`save_only_model`).
        files: every other file of the checkpoint by its path below it.
        run: what the checkpoint was made by (`sage_trl.resuming.RunIdentity`); empty if no recipe made it.
        sha256: `content_key` of the other fields.
    """

    version: Literal[1] = 1
    step: int
    weights_only: bool
    files: dict[str, FileEntry]
    run: dict[str, Any]
    sha256: str

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.files.values())


def seal(directory: Path, *, step: int, weights_only: bool, run: dict[str, Any]) -> Manifest:
    """Bring all files of a directory to the disk and write its manifest, which comes last."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and path != directory / MANIFEST_FILE]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        entries = list(pool.map(_flushed_entry, paths))
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        flush(folder)
    files = {path.relative_to(directory).as_posix(): entry for path, entry in zip(paths, entries, strict=True)}
    fields = {"version": 1, "step": step, "weights_only": weights_only, "run": run}
    fields["files"] = {name: entry.model_dump() for name, entry in files.items()}
    manifest = Manifest.model_validate({**fields, "sha256": content_key(fields)})
    write_json(directory / MANIFEST_FILE, manifest.model_dump())
    flush(directory)
    return manifest


def flush(path: Path) -> None:
    """Bring a file's bytes, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename on one file system, on the disk when it returns."""
    source.replace(target)
    flush(target.parent)
    flush(source.parent)


def _flushed_entry(path: Path) -> FileEntry:
    flush(path)
    return FileEntry(bytes=path.stat().st_size, sha256=file_sha256(path))


def read_manifest(checkpoint: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        DataError: it is missing or damaged.
    """
    path = checkpoint / MANIFEST_FILE
    manifest = parse_record(Manifest, read_json(path), path)
    if content_key(manifest.model_dump(exclude={"sha256"})) != manifest.sha256:
        raise DataError.at(path, None, "its content does not have its SHA-256", "go on from another checkpoint")
    return manifest


def fault_of(checkpoint: Path, *, hashes: bool = True) -> str | None:
    """Why a checkpoint is not whole, or None if it is.

    Args:
        checkpoint: its directory.
        hashes: read every byte; else only the files' names and sizes are compared.
    """
    if not (checkpoint / MANIFEST_FILE).is_file():
        return f"it has no {MANIFEST_FILE}"
    try:
        files = read_manifest(checkpoint).files
    except DataError as error:
        return error.problem
    for name, entry in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry.bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {entry.bytes}"
    return _changed(checkpoint, files) if hashes else None


def _changed(checkpoint: Path, files: dict[str, FileEntry]) -> str | None:
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        digests = pool.map(lambda name: file_sha256(checkpoint / name), files)
        for (name, entry), digest in zip(files.items(), digests, strict=True):
            if digest != entry.sha256:
                return f"{name} does not have its SHA-256"
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """The run's checkpoints, whole or not, the newest first: by steps, for a clock can go backwards."""
    numbered = {}
    for path in output_dir.glob("checkpoint-*"):
        name = _CHECKPOINT.fullmatch(path.name)
        if name and path.is_dir():
            numbered[int(name[1])] = path
    return [path for _, path in sorted(numbered.items(), reverse=True)]


def newest_whole(output_dir: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest whole checkpoint, or None, and those newer than it with what is wrong with them."""
    broken: dict[Path, str] = {}
    for checkpoint in checkpoints(output_dir):
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint, broken
        broken[checkpoint] = fault
    return None, broken


def publish(partial: Path, final: Path) -> None:
    """Give a sealed checkpoint its name; a broken one that has it is put aside, not deleted."""
    if final.exists():
        asides = (final.with_name(f"{final.name}.broken{number or ''}") for number in itertools.count())
        move(final, next(path for path in asides if not path.exists()))
    move(partial, final)


def rotate(published: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest whole checkpoints beyond `limit`, never the one just published, the best, or a broken one.

    Those of later steps neither go nor count: a resume has passed them over. A checkpoint leaves its name in one rename
    before its files are deleted, so a kill never leaves half of one.

    Args:
        published: what has just been written; the others, beside it, are known by their files' names and sizes.
        limit: how many stay; None for all.
        best: the best checkpoint.
    """
    if limit is None or limit <= 0:
        return
    output_dir = published.parent
    every = checkpoints(output_dir)
    older = every[every.index(published) + 1 :]
    whole = [published, *(path for path in older if fault_of(path, hashes=False) is None)]
    kept = whole[:1] + [path for path in whole[1:] if best is not None and path.resolve() == Path(best).resolve()]
    kept += [path for path in whole if path not in kept][: max(0, limit - len(kept))]
    for path in whole:
        if path not in kept:
            doomed = output_dir / PARTIAL_FOLDER / f"deleted-{path.name}"
            doomed.parent.mkdir(exist_ok=True)
            path.replace(doomed)
            shutil.rmtree(doomed)


def clear_partial(output_dir: Path) -> None:
    """Remove what a killed process was writing or deleting."""
    if (output_dir / PARTIAL_FOLDER).is_dir():
        shutil.rmtree(output_dir / PARTIAL_FOLDER)
