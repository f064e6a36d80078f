"""Files that are whole or absent: atomic writes, append-and-resume JSONL, content keys."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sage_trl.errors import DataError, LockedError

_LOCK = ".lock"


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[str]]:
    """Write text beside `path`, flush it to disk, and rename it over `path` only if the body did not raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that nobody else can read
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False, durable: bool = True) -> Iterator[Path]:
    """Give a new directory `.NAME.part` beside `path`, and rename it to `path` if the body did not raise.

    What a killed process left of it is removed first.

    Args:
        path: the directory to make; a link is followed.
        replace: take the place of a directory that is there, which stays as it is until then.
        durable: flush every file to disk before the renaming.

    Raises:
        DataError: `path` is a file, or a directory that holds something and is not to be replaced.
        LockedError: another process is making it.
    """
    path = path.resolve()
    part, old = (path.with_name(f".{path.name}.{ending}") for ending in ("part", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock_directory(part, path):
        try:
            _restore(old, path)
            is_free = not path.exists() or (path.is_dir() and (replace or not any(path.iterdir())))
            if not is_free:
                raise DataError.at(path, None, "it exists and is not empty", "remove it, or write elsewhere")
            yield part
            if durable:
                _flush(part)
            part.chmod(0o755)
            if path.exists():
                path.rename(old)
            part.rename(path)
            (path / _LOCK).unlink()
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            _restore(old, path)


@contextmanager
def _lock_directory(part: Path, path: Path) -> Iterator[None]:
    """Make `part` empty, and this process's until the body ends."""
    while True:
        part.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = (part / _LOCK).open("a", encoding="utf-8")
        except FileNotFoundError:
            continue  # its owner has just finished
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(
                    f"{path}: another process writes it\n  remedy: wait until it is done, or write elsewhere"
                ) from None
            if not _is_at(lock, part / _LOCK):
                continue  # its owner had it renamed or removed meanwhile
            for left in part.iterdir():
                if left.name != _LOCK:
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield
            return


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _restore(old: Path, path: Path) -> None:
    """Undo a replacement that was broken off between its two renamings, or end one that was not."""
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(path)


def _flush(directory: Path) -> None:
    for file in directory.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def path_below(directory: Path, relative: str) -> Path:
    """Where a file of that relative name lies in a directory that is being made.

    Raises:
        DataError: it would lie elsewhere, or be the directory itself.
    """
    path = Path(os.path.normpath(directory / relative))
    if directory not in path.parents:
        raise DataError.at(directory, None, f"{relative!r} does not lie below it", "name a file inside, without '..'")
    return path


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    with atomic_writer(path) as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: missing file or invalid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError.at(path, None, "no such file", "check the path, or run the tool that writes it first") from None
    except json.JSONDecodeError as error:
        raise DataError.at(path, error.lineno, f"not JSON: {error}", "mend the file or write it anew") from None
    except UnicodeDecodeError as error:
        raise DataError.at(path, None, f"not UTF-8: {error}", "save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and nesting as deep
        raise DataError.at(path, None, f"not JSON: {error}", "mend the file or write it anew") from None
    except OSError as error:
        raise DataError.at(
            path, None, f"cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value or the `DataError` that says why there is none) for each non-empty line.

    Raises:
        DataError: missing file.
    """
    if not path.is_file():
        raise DataError.at(path, None, "no such file", "check the path, or run the tool that writes it first")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _parse_line(line, path, number)


def read_whole_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) for each non-empty line; one that a kill cut short comes last and is left out.

    Raises:
        DataError: missing file, or a line that is not JSON before another one.
    """
    torn: DataError | None = None
    for number, value in read_json_lines(path):
        if torn is not None:
            raise torn
        if isinstance(value, DataError):
            torn = value
        else:
            yield number, value


def _parse_line(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return DataError.at(path, number, f"not UTF-8: {error}", "save the file as UTF-8")
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and nesting as deep
        return DataError.at(path, number, f"not JSON: {error}", "write one JSON object per line")


def to_line(value: Any) -> str:
    """One JSON value as one JSONL line, newline included."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write all rows atomically: the file has every row or does not change."""
    with atomic_writer(path) as stream:
        stream.writelines(to_line(row) for row in rows)


class JsonlAppender:
    """Appends rows that survive a kill: each batch reaches the disk before `append` returns.

    A line that an earlier kill cut short is removed on opening, so a resumed file holds whole rows only. The file is
    locked until it is closed.

    Raises:
        LockedError: another process has it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8", newline="\n")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise LockedError(
                f"{path}: another process writes to it\n  remedy: wait until it is done, or write elsewhere"
            ) from None
        _drop_torn_line(path)

    def append(self, rows: Iterable[Any]) -> None:
        self._stream.writelines(to_line(row) for row in rows)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def clear(self) -> None:
        """Remove all rows; the lock stays."""
        self._stream.truncate(0)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> JsonlAppender:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _drop_torn_line(path: Path) -> None:
    with path.open("rb+") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)


def content_key(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: equal content has an equal key, whatever the order of its fields."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
