"""Files that are whole or absent, and that one process writes at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sage_trl.errors import DataError, LockedError
from sage_trl.storage import (
    JsonlAppender,
    atomic_directory,
    atomic_writer,
    content_key,
    path_below,
    read_json,
    read_json_lines,
    write_json,
)

HOLD = """
import sys
from pathlib import Path
from sage_trl.storage import JsonlAppender
with JsonlAppender(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_writer(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with pytest.raises(KeyboardInterrupt), atomic_directory(path) as part:
        (part / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with atomic_directory(path) as part:
        (part / "inner").mkdir()
        (part / "inner" / "whole").write_text("whole")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["model"]
    assert (path / "inner" / "whole").read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o755
    with pytest.raises(DataError, match="not empty"), atomic_directory(path):
        pass
    with pytest.raises(DataError, match="not empty"), atomic_directory(path / "inner" / "whole"):
        pass


def test_a_directory_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "first").touch()
    with pytest.raises(RuntimeError), atomic_directory(path, replace=True) as part:
        (part / "second").touch()
        raise RuntimeError
    assert [file.name for file in path.iterdir()] == ["first"]
    (tmp_path / "link").symlink_to(path)
    with atomic_directory(tmp_path / "link", replace=True) as part:
        (part / "second").touch()
    assert [file.name for file in path.iterdir()] == ["second"]
    assert {file.name for file in tmp_path.iterdir()} == {"data", "link"}


def test_what_a_kill_left_of_a_directory_goes_or_comes_back(tmp_path: Path) -> None:
    path, part, old = (tmp_path / name for name in ("data", ".data.part", ".data.old"))
    for place in (part / "folder", old):
        place.mkdir(parents=True)
        (place / "left").touch()
    (part / "link").symlink_to(old)
    # Killed after the old directory was moved away: it is the one that counts.
    with pytest.raises(DataError, match="not empty"), atomic_directory(path):
        pass
    assert [file.name for file in path.iterdir()] == ["left"] and not part.exists() and not old.exists()
    part.mkdir()
    (part / "left").touch()
    with atomic_directory(path, replace=True) as place:
        assert place == part and [file.name for file in place.iterdir()] == [".lock"]
        (place / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_one_process_at_a_time_makes_a_directory(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "data") as part:
        (part / "first").touch()
        with pytest.raises(LockedError, match="data: another process"), atomic_directory(tmp_path / "data"):
            pass
        assert (part / "first").exists()
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["first"]


def test_a_torn_line_is_dropped_and_the_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"row": 1}\n{"row": 2', encoding="utf-8")
    with JsonlAppender(path) as appender:
        appender.append([{"row": 3}])
    assert list(read_json_lines(path)) == [(1, {"row": 1}), (2, {"row": 3})]


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(LockedError, match=r"rows\.jsonl: another process") as refused:
            JsonlAppender(path)
        assert refused.value.exit_code == 6
        holder.communicate("")
    JsonlAppender(path).close()


def test_keys_do_not_depend_on_the_order_of_fields() -> None:
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})


def test_faulty_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a":\n}', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.json:2: not JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read_json(tmp_path / "bad.json")
    for odd in ("[" * 100_000, "7" * 5000):
        (tmp_path / "bad.json").write_text(odd, encoding="utf-8")
        with pytest.raises(DataError, match="not JSON"):
            read_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize("relative", ["../a.png", "b/../../a.png", "/a.png", ".", "b/.."])
def test_only_files_below_a_directory_have_a_place_in_it(tmp_path: Path, relative: str) -> None:
    assert path_below(tmp_path, "b/./a.png") == tmp_path / "b" / "a.png"
    with pytest.raises(DataError, match="does not lie below"):
        path_below(tmp_path, relative)
